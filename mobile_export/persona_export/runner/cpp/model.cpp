#include "model.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "safetensors.h"

namespace persona {
namespace {

// What an ExecuTorch file's segments are aligned to at most.
constexpr std::size_t kAlignment = 128;

}  // namespace

Model::Model(const ProgramSpec& spec, std::size_t inputs)
    : spec_(spec), forward_(spec.forward, inputs, spec.feeds) {
  if (!spec_.head) return;
  head_file_ = read_file(spec_.head->path);
  const std::size_t room = (head_file_.size() + kAlignment - 1) / kAlignment * kAlignment;
  patched_.reset(static_cast<char*>(std::aligned_alloc(kAlignment, room)));
  if (!patched_) throw std::bad_alloc();
}

void Model::set_slots(const Values& values) {
  forward_.set_slots(values);
  if (!spec_.head) return;
  head_.reset();
  std::copy(head_file_.begin(), head_file_.end(), patched_.get());
  for (const auto& feed : spec_.feeds) {
    if (!feed.offset) continue;
    const auto& given = values.at(feed.tensor);
    std::memcpy(patched_.get() + *feed.offset, given.data(), given.size() * sizeof(float));
  }
  head_.emplace(patched_.get(), head_file_.size(), *spec_.head, forward_.output_count());
}

std::vector<Tensor> Model::run(const std::vector<Tensor>& inputs) {
  auto outputs = forward_.run(inputs);
  return head_ ? head_->run(outputs) : outputs;
}

}  // namespace persona
