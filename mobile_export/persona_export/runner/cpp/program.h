// One method of an ExecuTorch program, whose slots are bound once and then written in place.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor_ptr.h>

#include "bundle.h"

namespace persona {

class Program {
 public:
  // Loads a method from its file, with those of `feeds` that are inputs. Throws RunError, also
  // where the method does not take as many inputs and feeds.
  Program(const Entry& entry, std::size_t inputs, const std::vector<Feed>& feeds);

  // Loads a method without slots from memory, which must stay as it is while the program lives.
  Program(const void* data, std::size_t size, const Entry& entry, std::size_t inputs);

  // Sets every slot tensor that is an input. After the first time this only writes into the bound
  // buffers: it is what an edit costs on a phone.
  void set_slots(const Values& values);

  // Outputs for these inputs. Throws RunError.
  std::vector<Tensor> run(const std::vector<Tensor>& inputs);

  std::size_t output_count() const { return output_count_; }

 private:
  struct Bound {
    std::size_t index;
    std::vector<float> values;
    executorch::extension::TensorPtr tensor;
  };

  void load(const Entry& entry, std::size_t inputs);

  // The slots outlive the module, which holds pointers to them.
  std::map<std::string, Bound> slots_;
  std::unique_ptr<executorch::extension::Module> module_;
  std::string method_;
  std::size_t output_count_ = 0;
  bool bound_ = false;
};

}  // namespace persona
