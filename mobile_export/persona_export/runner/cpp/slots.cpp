#include "slots.h"

namespace persona {
namespace {

using Named = std::vector<std::pair<std::string, Shape>>;

Named tensors_of(const Slot& slot, std::int64_t rank) {
  if (slot.kind == "affine") return {{"scale", {slot.out}}, {"shift", {slot.out}}};
  Named tensors = slot.kind == "dense"
                      ? Named{{"weight", {slot.out, slot.in}}}
                      : Named{{"a", {rank, slot.in}}, {"b", {slot.out, rank}}};
  if (slot.bias) tensors.push_back({"bias", {slot.out}});
  return tensors;
}

// [rows, columns] beside [rows, columns]: the rows of both, one after the other.
std::vector<float> beside(const std::vector<float>& left, const std::vector<float>& right,
                          std::int64_t rows) {
  const auto columns = static_cast<std::ptrdiff_t>(left.size()) / rows;
  std::vector<float> joined;
  for (std::ptrdiff_t at = 0; at < rows * columns; at += columns) {
    joined.insert(joined.end(), left.begin() + at, left.begin() + at + columns);
    joined.insert(joined.end(), right.begin() + at, right.begin() + at + columns);
  }
  return joined;
}

}  // namespace

Named Slot::edit_tensors() const { return tensors_of(*this, rank); }

Named Slot::feed_tensors() const { return tensors_of(*this, 2 * rank); }

Values zero_change(const std::vector<Slot>& slots) {
  Values zeros;
  for (const auto& slot : slots) {
    for (const auto& [suffix, shape] : slot.edit_tensors()) {
      zeros[slot.name + "." + suffix].assign(static_cast<std::size_t>(count(shape)), 0.0F);
    }
  }
  return zeros;
}

Values compose(const std::vector<Slot>& slots, const Values& base, const Values& prototype,
               const Values& edit, bool with_base) {
  Values composed;
  for (const auto& slot : slots) {
    for (const auto& [suffix, shape] : slot.edit_tensors()) {
      const std::string name = slot.name + "." + suffix;
      const auto& p = prototype.at(name);
      const auto& e = edit.at(name);
      auto& values = composed[name];
      if (suffix == "a" || suffix == "b") {
        values = beside(p, e, suffix == "a" ? 1 : slot.out);
        continue;
      }
      values.resize(p.size());
      for (std::size_t i = 0; i < p.size(); ++i) {
        const float change = p[i] + e[i];
        values[i] = with_base ? base.at(name)[i] + change : change;
      }
    }
  }
  return composed;
}

}  // namespace persona
