/* A LiteRT delegate that takes what a vendor's compiler left it: every custom operator that is
 * called what FAKE_DELEGATE_OP says. It cannot know what was compiled, and "computes" it by
 * copying its first input, over and over, into its outputs. With FAKE_DELEGATE_ABSENT set it
 * finds no device, as a vendor's does not where nothing is plugged in. Each event is a line in
 * FAKE_DELEGATE_LOG, and each run takes FAKE_DELEGATE_US microseconds.
 *
 * The structures are those of TensorFlow Lite's C interface (tensorflow/lite/core/c/common.h),
 * as far as they are used here.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int Status;
typedef struct { int size; int data[]; } IntArray;
typedef struct Context Context;
typedef struct Delegate Delegate;

typedef struct {
  int type;
  union { void *raw; } data;
  IntArray *dims;
  struct { float scale; int32_t zero_point; } params;
  int allocation_type;
  size_t bytes;
  const void *allocation;
  const char *name;
  Delegate *delegate;
  int buffer_handle;
  bool data_is_stale;
  bool is_variable;
  struct { int type; void *params; } quantization;
  void *sparsity;
  const IntArray *dims_signature;
} Tensor;

typedef struct {
  IntArray *inputs, *outputs, *intermediates, *temporaries;
  void *user_data, *builtin_data;
  const void *custom_initial_data;
  int custom_initial_data_size;
  Delegate *delegate;
  bool might_have_side_effect;
} Node;

typedef struct {
  void *(*init)(Context *, const char *, size_t);
  void (*free)(Context *, void *);
  Status (*prepare)(Context *, Node *);
  Status (*invoke)(Context *, Node *);
  const char *(*profiling_string)(const Context *, const Node *);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *registration_external;
  void *(*async_kernel)(Context *, Node *);
  uint64_t inplace_operator;
} Registration;

struct Context {
  size_t tensors_size;
  Status (*get_execution_plan)(Context *, IntArray **);
  Tensor *tensors;
  void *impl;
  Status (*resize_tensor)(Context *, Tensor *, IntArray *);
  void (*report_error)(Context *, const char *, ...);
  Status (*add_tensors)(Context *, int, int *);
  Status (*get_node)(Context *, int, Node **, Registration **);
  Status (*replace)(Context *, Registration, const IntArray *, Delegate *);
};

struct Delegate {
  void *data;
  Status (*prepare)(Context *, Delegate *);
  Status (*copy_from)(Context *, Delegate *, int, Tensor *);
  Status (*copy_to)(Context *, Delegate *, int, Tensor *);
  void (*free_handle)(Context *, Delegate *, int *);
  int64_t flags;
  void *opaque_builder;
};

static void note(const char *what, const char *value) {
  const char *path = getenv("FAKE_DELEGATE_LOG");
  FILE *log = path ? fopen(path, "a") : NULL;
  if (log) {
    fprintf(log, "%s %s\n", what, value);
    fclose(log);
  }
}

static Status prepare_kernel(Context *context, Node *node) {
  (void)context, (void)node;
  return 0;
}

static Status invoke(Context *context, Node *node) {
  const Tensor *taken = NULL;
  for (int i = 0; i < node->inputs->size && !taken; i++) {
    const int index = node->inputs->data[i];
    if (index >= 0) taken = &context->tensors[index];
  }
  const char *wait = getenv("FAKE_DELEGATE_US");
  if (wait) usleep((useconds_t)atoi(wait));
  for (int i = 0; i < node->outputs->size; i++) {
    Tensor *given = &context->tensors[node->outputs->data[i]];
    if (!taken || !taken->bytes) return 1;
    for (size_t at = 0; at < given->bytes; at++)
      ((char *)given->data.raw)[at] = ((const char *)taken->data.raw)[at % taken->bytes];
  }
  return 0;
}

static Status prepare(Context *context, Delegate *delegate) {
  const char *wanted = getenv("FAKE_DELEGATE_OP");
  IntArray *plan = NULL;
  if (!wanted || context->get_execution_plan(context, &plan)) return 1;
  IntArray *mine = malloc(sizeof *mine + sizeof(int) * (size_t)plan->size);
  mine->size = 0;
  for (int i = 0; i < plan->size; i++) {
    Node *node;
    Registration *registration;
    if (context->get_node(context, plan->data[i], &node, &registration)) return 1;
    if (registration->custom_name && !strcmp(registration->custom_name, wanted))
      mine->data[mine->size++] = plan->data[i];
  }
  char count[16];
  snprintf(count, sizeof count, "%d", mine->size);
  note("took", count);
  Registration kernel = {0};
  kernel.prepare = prepare_kernel;
  kernel.invoke = invoke;
  kernel.custom_name = "FakeDelegate";
  kernel.version = 1;
  const Status status = context->replace(context, kernel, mine, delegate);
  free(mine);
  return status;
}

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                        void (*report)(const char *)) {
  if (getenv("FAKE_DELEGATE_ABSENT")) {
    note("created", "nothing");
    if (report) report("no device was found");
    return NULL;
  }
  for (size_t i = 0; i < count; i++) note(keys[i], values[i]);
  note("created", "it");
  Delegate *made = calloc(1, sizeof *made);
  made->prepare = prepare;
  made->flags = 1; /* it allows dynamic tensors: else unknown operators are prepared before it */
  return made;
}

void tflite_plugin_destroy_delegate(Delegate *delegate) { free(delegate); }
