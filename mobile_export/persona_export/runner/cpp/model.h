// A bundle's forward program with its slots, in one part or in two.
#pragma once

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bundle.h"
#include "program.h"

namespace persona {

class Model {
 public:
  // Throws InputError or RunError.
  Model(const ProgramSpec& spec, std::size_t inputs);

  // Sets every slot tensor: those that are inputs in place; those of a head by patching a copy of
  // its file and loading that anew, after the head before is gone (docs/edit-format.md,
  // "A program in two").
  void set_slots(const Values& values);

  // Outputs for one sample's inputs, in the program's order.
  std::vector<Tensor> run(const std::vector<Tensor>& inputs);

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  const ProgramSpec spec_;
  Program forward_;
  std::string head_file_;  // as the bundle has it
  std::unique_ptr<char, Free> patched_;
  std::optional<Program> head_;
};

}  // namespace persona
