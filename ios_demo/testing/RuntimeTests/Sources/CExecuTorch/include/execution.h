// ExecuTorch's C++ `Module` as C functions, for the Swift stand-in.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Element types by ExecuTorch's own numbers.
enum { et_long = 4, et_float = 6 };

typedef struct et_module et_module;

// A tensor that the caller keeps alive for as long as it is bound.
typedef struct {
  int32_t dtype;
  const int64_t* sizes;
  size_t rank;
  const void* data;
} et_tensor;

// Functions that give an int32_t give ExecuTorch's error code, 0 where all went well.
et_module* et_module_open(const char* path);
void et_module_close(et_module* module);
int32_t et_load_method(et_module* module, const char* method);

// Names one after another, each with its own zero; the caller frees them. NULL after a failure.
char* et_method_names(et_module* module, size_t* count);
char* et_backend_names(et_module* module, const char* method, size_t* count);

int32_t et_set_input(et_module* module, const char* method, et_tensor tensor, size_t index);

// Runs with the first `count` inputs and those that were set. Outputs live until the next run.
int32_t et_execute(et_module* module, const char* method, const et_tensor* inputs, size_t count);
size_t et_output_count(const et_module* module);
// rank is that of the output; its sizes are written to `sizes`, which has room for 16.
int32_t et_output(const et_module* module, size_t index, int32_t* dtype, int64_t* sizes,
                  size_t* rank, const void** data);

#ifdef __cplusplus
}
#endif
