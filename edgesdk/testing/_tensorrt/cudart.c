/* A stand-in for NVIDIA's libcudart: device memory is host memory, one GPU that the environment
 * describes. FAKE_GPU_NAME, FAKE_GPU_COMPUTE (8.7), FAKE_CUDA_DRIVER (12060). */
#include <stdlib.h>
#include <string.h>

static const char *setting(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

const char *cudaGetErrorString(int status)
{
    return status == 100 ? "no CUDA-capable device is detected" : "out of memory";
}

int cudaGetDeviceCount(int *count)
{
    *count = strcmp(setting("FAKE_GPU_NAME", "Orin"), "none") != 0;
    return *count ? 0 : 100;
}

int cudaGetDeviceProperties(void *properties, int device)
{
    (void)device;
    memset(properties, 0, 1024);
    strncpy(properties, setting("FAKE_GPU_NAME", "Orin"), 255);
    return 0;
}

int cudaDeviceGetAttribute(int *value, int attribute, int device)
{
    const char *compute = setting("FAKE_GPU_COMPUTE", "8.7");
    const char *point = strchr(compute, '.');
    (void)device;
    *value = attribute == 75 ? atoi(compute) : point ? atoi(point + 1) : 0;
    return 0;
}

int cudaDriverGetVersion(int *version)
{
    *version = atoi(setting("FAKE_CUDA_DRIVER", "12060"));
    return 0;
}

int cudaRuntimeGetVersion(int *version)
{
    *version = 12060;
    return 0;
}

int cudaMalloc(void **pointer, size_t size)
{
    *pointer = malloc(size);
    return *pointer ? 0 : 2;
}

int cudaFree(void *pointer)
{
    free(pointer);
    return 0;
}

int cudaStreamCreate(void **stream)
{
    *stream = malloc(1);
    return 0;
}

int cudaStreamSynchronize(void *stream)
{
    (void)stream;
    return 0;
}

int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream)
{
    (void)kind;
    (void)stream;
    memcpy(to, from, size);
    return 0;
}
