// What a slot holds: effective = base + prototype + edit (docs/edit-format.md, "Applying").
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "safetensors.h"

namespace persona {

struct Slot {
  std::string name;
  std::string kind;  // dense, low-rank or affine
  std::int64_t out;
  std::int64_t in;
  std::int64_t rank;
  bool bias;

  // Suffix and shape of each tensor in an edit.
  std::vector<std::pair<std::string, Shape>> edit_tensors() const;
  // The same as a program takes them: with twice the rank, for prototype and edit.
  std::vector<std::pair<std::string, Shape>> feed_tensors() const;
};

// `SLOT.SUFFIX` -> values, row by row.
using Values = std::map<std::string, std::vector<float>>;

// The edit that changes nothing.
Values zero_change(const std::vector<Slot>& slots);

// Prototype + edit for every tensor, and the base added to it where `with_base`. Low-rank factors
// are stacked along the rank instead, and have no base: it is a constant of the program.
Values compose(const std::vector<Slot>& slots, const Values& base, const Values& prototype,
               const Values& edit, bool with_base);

}  // namespace persona
