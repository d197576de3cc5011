/* A LiteRT delegate that takes elementwise operators and computes them itself.

   It is loaded as a vendor's is: by the two functions of an external delegate. What LiteRT hands
   over is declared here as far as it is needed; the layouts are those of the public header
   tensorflow/lite/core/c/common.h, which promises not to reorder them. */

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, FAILED = 1, FLOAT32 = 1 };
/* Operators by their number in the schema of .tflite files. */
enum { LOGISTIC = 14, TANH = 28 };
enum { MOST_STEPS = 64 };

typedef struct {
  int size;
  int data[];
} Ints;

typedef struct {
  int type;
  void *data;
  Ints *dims;
  float scale;
  int32_t zero_point;
  int allocation_type;
  size_t bytes;
  const void *allocation;
  const char *name;
  void *delegate;
  int buffer_handle;
  bool data_is_stale;
  bool is_variable;
  struct {
    int type;
    void *params;
  } quantization;
  void *sparsity;
  const Ints *dims_signature;
} Tensor;

typedef struct {
  Ints *inputs, *outputs, *intermediates, *temporaries;
  void *user_data;
  void *builtin_data;
} Node;

typedef struct Context Context;
typedef struct Delegate Delegate;

typedef struct {
  void *(*init)(Context *, const char *, size_t);
  void (*free)(Context *, void *);
  int (*prepare)(Context *, Node *);
  int (*invoke)(Context *, Node *);
  const char *(*profiling_string)(const Context *, const Node *);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *external;
  void *(*async_kernel)(Context *, Node *);
  uint64_t inplace;
} Registration;

struct Context {
  size_t tensors_size;
  int (*GetExecutionPlan)(Context *, Ints **);
  Tensor *tensors;
  void *impl;
  int (*ResizeTensor)(Context *, Tensor *, Ints *);
  void (*ReportError)(Context *, const char *, ...);
  int (*AddTensors)(Context *, int, int *);
  int (*GetNodeAndRegistration)(Context *, int, Node **, Registration **);
  int (*ReplaceNodes)(Context *, Registration, const Ints *, Delegate *);
};

struct Delegate {
  void *data;
  int (*prepare)(Context *, Delegate *);
  void *copy_from, *copy_to, *free_handle;
  int64_t flags;
  void *builder;
};

typedef struct {
  Delegate *delegate;
  Ints *nodes, *inputs, *outputs;
} Parameters;

/* One operator: tensors by number, and room for a result that stays inside. */
typedef struct {
  int code, from, to;
  float *room;
} Step;

typedef struct {
  int count;
  Step steps[MOST_STEPS];
} Kernel;

static void *init(Context *context, const char *buffer, size_t length) {
  const Parameters *given = (const Parameters *)buffer;
  Kernel *kernel = calloc(1, sizeof *kernel);
  (void)length;
  for (int i = 0; kernel && i < given->nodes->size && i < MOST_STEPS; i++) {
    Node *node;
    Registration *registration;
    if (context->GetNodeAndRegistration(context, given->nodes->data[i], &node, &registration))
      continue;
    Step step = {registration->builtin_code, node->inputs->data[0], node->outputs->data[0], 0};
    kernel->steps[kernel->count++] = step;
  }
  return kernel;
}

static void release(Context *context, void *buffer) {
  Kernel *kernel = buffer;
  (void)context;
  for (int i = 0; kernel && i < kernel->count; i++) free(kernel->steps[i].room);
  free(kernel);
}

static int prepare_kernel(Context *context, Node *node) {
  Kernel *kernel = node->user_data;
  for (int i = 0; i < kernel->count; i++) {
    Step *step = &kernel->steps[i];
    free(step->room);
    step->room = malloc(context->tensors[step->to].bytes);
    if (!step->room) return FAILED;
  }
  return OK;
}

static const float *value_of(Context *context, const Kernel *kernel, int tensor) {
  for (int i = 0; i < kernel->count; i++)
    if (kernel->steps[i].to == tensor) return kernel->steps[i].room;
  return context->tensors[tensor].data;
}

static int invoke(Context *context, Node *node) {
  Kernel *kernel = node->user_data;
  for (int i = 0; i < kernel->count; i++) {
    Step *step = &kernel->steps[i];
    const float *from = value_of(context, kernel, step->from);
    size_t count = context->tensors[step->to].bytes / sizeof(float);
    for (size_t k = 0; k < count; k++)
      step->room[k] = step->code == TANH ? tanhf(from[k]) : 1.0f / (1.0f + expf(-from[k]));
  }
  for (int i = 0; i < node->outputs->size; i++) {
    Tensor *result = &context->tensors[node->outputs->data[i]];
    memcpy(result->data, value_of(context, kernel, node->outputs->data[i]), result->bytes);
  }
  return OK;
}

static int prepare(Context *context, Delegate *delegate) {
  Ints *plan;
  if (context->GetExecutionPlan(context, &plan)) return FAILED;
  Ints *taken = malloc(sizeof(int) * (size_t)(1 + plan->size));
  if (!taken) return FAILED;
  taken->size = 0;
  for (int i = 0; i < plan->size && taken->size < MOST_STEPS; i++) {
    Node *node;
    Registration *registration;
    if (context->GetNodeAndRegistration(context, plan->data[i], &node, &registration)) continue;
    bool known = registration->builtin_code == LOGISTIC || registration->builtin_code == TANH;
    if (known && context->tensors[node->inputs->data[0]].type == FLOAT32)
      taken->data[taken->size++] = plan->data[i];
  }
  Registration kernel = {init, release, prepare_kernel, invoke, 0, 0, "PlayedDelegate", 1, 0, 0, 0};
  kernel.builtin_code = 51; /* DELEGATE */
  int status = context->ReplaceNodes(context, kernel, taken, delegate);
  free(taken);
  return status;
}

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                        void (*report)(const char *)) {
  Delegate *delegate = calloc(1, sizeof *delegate);
  (void)keys, (void)values, (void)count, (void)report;
  if (delegate) delegate->prepare = prepare;
  return delegate;
}

void tflite_plugin_destroy_delegate(Delegate *delegate) { free(delegate); }
