/* Runs a block's library without Python: driver SHIM LIBRARY INPUT OUTPUT THREADS REPEATS IN_SHAPE OUT_SHAPE
 * (shapes as 1,3,32,32; INPUT and OUTPUT hold raw float32). What it says on standard error is why it stopped. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  void *data;
  int32_t device_type, device_id, ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} Tensor; /* DLTensor */

typedef struct {
  int32_t type_index;
  uint32_t padding;
  union {
    uint64_t number;
    void *pointer;
  } value;
} Any; /* TVMFFIAny */

static void stop(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void *opened(const char *path) {
  void *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
  if (!handle) stop(path, dlerror());
  return handle;
}

static void *found(void *handle, const char *name) {
  void *address = dlsym(handle, name);
  if (!address) stop(name, dlerror());
  return address;
}

static Tensor tensor(char *shape) {
  Tensor made = {0, 1, 0, 0, 2, 32, 1, malloc(8 * sizeof(int64_t)), 0, 0};
  size_t bytes = sizeof(float);
  for (char *size = strtok(shape, ","); size; size = strtok(0, ",")) {
    bytes *= (size_t)(made.shape[made.ndim++] = atoll(size));
  }
  if (posix_memalign(&made.data, 64, bytes)) stop("memory", "none left");
  memset(made.data, 0xff, bytes);
  return made;
}

static size_t elements(const Tensor *of) {
  size_t count = 1;
  for (int i = 0; i < of->ndim; ++i) count *= (size_t)of->shape[i];
  return count;
}

int main(int argc, char **argv) {
  if (argc != 9) stop("arguments", "SHIM LIBRARY INPUT OUTPUT THREADS REPEATS IN_SHAPE OUT_SHAPE");
  void *shim = opened(argv[1]);
  int (*set_threads)(int) = (int (*)(int))found(shim, "nas_set_threads");
  void (*last_error)(char *, size_t) = (void (*)(char *, size_t))found(shim, "nas_last_error");
  int (*run)(void *, Any *, int32_t, Any *) =
      (int (*)(void *, Any *, int32_t, Any *))found(opened(argv[2]), "__tvm_ffi_run");
  set_threads(atoi(argv[5]));
  Tensor x = tensor(argv[7]), y = tensor(argv[8]);
  FILE *in = fopen(argv[3], "rb");
  if (!in || fread(x.data, sizeof(float), elements(&x), in) != elements(&x)) stop(argv[3], "too short");
  for (int i = 0; i < atoi(argv[6]); ++i) {
    Any arguments[2] = {{7, 0, {0}}, {7, 0, {0}}}, result = {0, 0, {0}};
    arguments[0].value.pointer = &x;
    arguments[1].value.pointer = &y;
    if (run(0, arguments, 2, &result)) {
      char message[1024];
      last_error(message, sizeof message);
      stop("run", message);
    }
  }
  FILE *out = fopen(argv[4], "wb");
  if (!out || fwrite(y.data, sizeof(float), elements(&y), out) != elements(&y) || fclose(out)) stop(argv[4], "unwritten");
  return 0;
}
