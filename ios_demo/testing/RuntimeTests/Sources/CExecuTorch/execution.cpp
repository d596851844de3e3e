#include "execution.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;

struct et_module {
  Module module;
  // What is bound must outlive the binding.
  std::map<std::string, std::map<size_t, TensorPtr>> bound;
  std::vector<EValue> outputs;
};

namespace {

TensorPtr wrap(const et_tensor& tensor) {
  std::vector<SizesType> sizes(tensor.sizes, tensor.sizes + tensor.rank);
  return executorch::extension::from_blob(const_cast<void*>(tensor.data), sizes,
                                          static_cast<ScalarType>(tensor.dtype));
}

int32_t code(Error error) { return static_cast<int32_t>(error); }

template <typename Names>
char* joined(const Names& names, size_t* count) {
  std::string all;
  *count = 0;
  for (const auto& name : names) {
    all.append(name).push_back('\0');
    ++*count;
  }
  auto* copy = static_cast<char*>(std::malloc(all.size() + 1));
  std::memcpy(copy, all.c_str(), all.size() + 1);
  return copy;
}

}  // namespace

et_module* et_module_open(const char* path) {
  return new et_module{Module(path, Module::LoadMode::Mmap), {}, {}};
}

void et_module_close(et_module* module) { delete module; }

int32_t et_load_method(et_module* module, const char* method) {
  return code(module->module.load_method(method));
}

char* et_method_names(et_module* module, size_t* count) {
  const auto names = module->module.method_names();
  return names.ok() ? joined(*names, count) : nullptr;
}

char* et_backend_names(et_module* module, const char* method, size_t* count) {
  const auto meta = module->module.method_meta(method);
  if (!meta.ok()) return nullptr;
  std::vector<std::string> names;
  for (size_t i = 0; i < meta->num_backends(); ++i) {
    const auto name = meta->get_backend_name(i);
    if (!name.ok()) return nullptr;
    names.emplace_back(*name);
  }
  return joined(names, count);
}

int32_t et_set_input(et_module* module, const char* method, et_tensor tensor, size_t index) {
  auto wrapped = wrap(tensor);
  const auto error = module->module.set_input(method, EValue(*wrapped), index);
  if (error == Error::Ok) module->bound[method][index] = std::move(wrapped);
  return code(error);
}

int32_t et_execute(et_module* module, const char* method, const et_tensor* inputs, size_t count) {
  std::vector<TensorPtr> tensors;
  std::vector<EValue> values;
  for (size_t i = 0; i < count; ++i) {
    tensors.push_back(wrap(inputs[i]));
    values.emplace_back(*tensors.back());
  }
  auto outputs = module->module.execute(method, values);
  if (!outputs.ok()) return code(outputs.error());
  module->outputs = std::move(*outputs);
  return 0;
}

size_t et_output_count(const et_module* module) { return module->outputs.size(); }

int32_t et_output(const et_module* module, size_t index, int32_t* dtype, int64_t* sizes,
                  size_t* rank, const void** data) {
  const auto& value = module->outputs.at(index);
  if (!value.isTensor()) return code(Error::InvalidType);
  const auto& tensor = value.toTensor();
  *dtype = static_cast<int32_t>(tensor.scalar_type());
  *rank = static_cast<size_t>(tensor.dim());
  for (size_t i = 0; i < *rank; ++i) sizes[i] = tensor.size(i);
  *data = tensor.const_data_ptr();
  return 0;
}
