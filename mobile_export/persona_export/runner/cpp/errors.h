// What can go wrong, and the exit code of each.
#pragma once

#include <stdexcept>

namespace persona {

constexpr int kPassed = 0;
constexpr int kMismatch = 1;
constexpr int kBadInput = 2;
constexpr int kRuntimeFailed = 3;

// A command line or a bundle that cannot be used; the message says what to do.
struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A program that ExecuTorch refuses to load or to run.
struct RunError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace persona
