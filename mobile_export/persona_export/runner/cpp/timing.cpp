#include "timing.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>

#include "errors.h"
#include "model.h"

namespace persona {
namespace {

// e_machine of an ELF file (gABI, "ELF Header"): two bytes at 18, in this machine's order.
std::uint16_t elf_machine(const char* path) {
  char header[20] = {};
  std::ifstream(path, std::ios::binary).read(header, sizeof(header));
  std::uint16_t machine = 0;
  std::memcpy(&machine, header + 18, sizeof(machine));
  return machine;
}

}  // namespace

bool emulated() {
  // Emulators answer for /proc/self/exe themselves, but leave the thread's own link to the kernel.
  return elf_machine("/proc/thread-self/exe") != elf_machine("/proc/self/exe");
}

double median_forward_us(const Bundle& bundle, std::size_t times) {
  if (emulated()) {
    throw InputError("--bench: this program runs under emulation, where times mean nothing; "
                     "run it on the processor itself");
  }
  const auto& inputs = bundle.golden.front().inputs;
  const Values nothing = zero_change(bundle.slots);
  Model model(bundle.program, inputs.size());
  model.set_slots(
      compose(bundle.slots, bundle.base, nothing, nothing, bundle.program.carries_base));
  for (std::size_t i = 0; i < times / 10 + 1; ++i) model.run(inputs);
  std::vector<double> took(times);
  for (auto& one : took) {
    const auto start = std::chrono::steady_clock::now();
    model.run(inputs);
    const auto end = std::chrono::steady_clock::now();
    one = std::chrono::duration<double, std::micro>(end - start).count();
  }
  std::nth_element(took.begin(), took.begin() + took.size() / 2, took.end());
  return took[took.size() / 2];
}

}  // namespace persona
