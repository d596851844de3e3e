// Golden vectors: what a program gives against what it must give.
#pragma once

#include <string>
#include <vector>

#include "bundle.h"

namespace persona {

// One case: the base, a prototype, the edit, or what is observed, over all golden inputs.
struct Case {
  std::string name;
  double largest_difference = 0;   // absolute; infinite where shapes differ or there is a NaN
  double relative_difference = 0;  // to max(1, largest expected magnitude), as the tolerance is
};

struct Parity {
  std::vector<Case> cases;
  Tensors outputs;  // by the name that the expectation has in golden.safetensors

  bool within(double tolerance) const;
};

// Runs every case of the bundle. Throws RunError.
Parity check_parity(const Bundle& bundle);

}  // namespace persona
