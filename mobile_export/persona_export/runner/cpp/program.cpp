#include "program.h"

#include <algorithm>

#include <executorch/extension/data_loader/buffer_data_loader.h>
#include <executorch/extension/tensor/tensor.h>

#include "errors.h"

namespace persona {
namespace {

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::extension::BufferDataLoader;
using executorch::extension::from_blob;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::EValue;

void check(executorch::runtime::Error error, const std::string& what) {
  if (error == executorch::runtime::Error::Ok) return;
  throw RunError("ExecuTorch cannot " + what + ": " + executorch::runtime::to_string(error));
}

std::vector<SizesType> sizes(const Shape& shape) { return {shape.begin(), shape.end()}; }

Tensor copy_out(const executorch::aten::Tensor& tensor) {
  if (tensor.scalar_type() != ScalarType::Float) throw RunError("an output is not binary32");
  const auto* bytes = static_cast<const std::uint8_t*>(tensor.const_data_ptr());
  return {"F32", {tensor.sizes().begin(), tensor.sizes().end()}, {bytes, bytes + tensor.nbytes()}};
}

}  // namespace

Program::Program(const Entry& entry, std::size_t inputs, const std::vector<Feed>& feeds)
    : module_(std::make_unique<Module>(entry.path.string(), Module::LoadMode::Mmap)) {
  for (const auto& feed : feeds) {
    if (!feed.index) continue;
    auto& slot = slots_[feed.tensor];
    slot.index = *feed.index;
    slot.values.resize(static_cast<std::size_t>(count(feed.shape)));
    slot.tensor = from_blob(slot.values.data(), sizes(feed.shape), ScalarType::Float);
  }
  load(entry, inputs);
}

Program::Program(const void* data, std::size_t size, const Entry& entry, std::size_t inputs)
    : module_(std::make_unique<Module>(std::make_unique<BufferDataLoader>(data, size))) {
  load(entry, inputs);
}

void Program::load(const Entry& entry, std::size_t inputs) {
  method_ = entry.method;
  const std::string what = "method '" + method_ + "' of " + entry.path.string();
  check(module_->load_method(method_), "load " + what);
  const auto meta = module_->method_meta(method_);
  check(meta.error(), "describe " + what);
  if (meta->num_inputs() != inputs + slots_.size()) {
    throw RunError(what + " takes " + std::to_string(meta->num_inputs()) +
                   " inputs; the manifest says " + std::to_string(inputs) + " and " +
                   std::to_string(slots_.size()) + " of slots");
  }
  output_count_ = meta->num_outputs();
}

void Program::set_slots(const Values& values) {
  for (auto& [name, slot] : slots_) {
    const auto& given = values.at(name);
    std::copy(given.begin(), given.end(), slot.values.begin());
    if (!bound_) {
      check(module_->set_input(method_, EValue(*slot.tensor), slot.index), "bind slot " + name);
    }
  }
  bound_ = true;
}

std::vector<Tensor> Program::run(const std::vector<Tensor>& inputs) {
  std::vector<TensorPtr> tensors;
  std::vector<EValue> values;
  for (const auto& input : inputs) {
    const auto type = input.dtype == "I64" ? ScalarType::Long : ScalarType::Float;
    // The runtime only reads inputs, but its type for them has no const.
    auto* data = const_cast<std::uint8_t*>(input.bytes.data());
    tensors.push_back(from_blob(data, sizes(input.shape), type));
    values.emplace_back(*tensors.back());
  }
  const auto outputs = module_->execute(method_, values);
  check(outputs.error(), "run method '" + method_ + "'");
  std::vector<Tensor> copies;
  for (const auto& output : *outputs) copies.push_back(copy_out(output.toTensor()));
  return copies;
}

}  // namespace persona
