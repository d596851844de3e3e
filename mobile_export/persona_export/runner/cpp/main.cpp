// persona-runner: a bundle's ExecuTorch program on this processor, held against golden vectors.
// Prints one JSON object. Exit codes: 0 within tolerance, 1 not, 2 bad input, 3 runtime failure.

#include <cmath>
#include <iostream>
#include <optional>
#include <string>

#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/platform/runtime.h>
#include <nlohmann/json.hpp>

#include "bundle.h"
#include "errors.h"
#include "parity.h"
#include "timing.h"

namespace {

constexpr const char* kUsage =
    "usage: persona-runner BUNDLE [--precision fp32|fp16|int8] [--outputs FILE.safetensors] "
    "[--bench TIMES]";

struct Options {
  std::string bundle;
  std::optional<std::string> precision;
  std::optional<std::string> outputs;
  std::size_t bench = 0;
};

std::size_t whole(const std::string& word, const std::string& value) {
  const bool digits = value.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || value.empty() || value.size() > 7 || std::stoul(value) == 0) {
    throw persona::InputError(word + " wants a whole number from 1 to 9999999, got '" + value +
                              "'");
  }
  return std::stoul(value);
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool takes_value = word == "--precision" || word == "--outputs" || word == "--bench";
    if (takes_value && i + 1 == argc) throw persona::InputError(word + " needs a value\n" + kUsage);
    if (word == "--precision") {
      options.precision = argv[++i];
    } else if (word == "--outputs") {
      options.outputs = argv[++i];
    } else if (word == "--bench") {
      options.bench = whole(word, argv[++i]);
    } else if (word.rfind("--", 0) == 0 || !options.bundle.empty()) {
      throw persona::InputError("'" + word + "' is not understood\n" + kUsage);
    } else {
      options.bundle = word;
    }
  }
  if (options.bundle.empty()) throw persona::InputError(kUsage);
  return options;
}

// JSON has no infinity: null where an output has another shape or is not a number.
nlohmann::ordered_json number(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json();
}

int run(const Options& options) {
  const persona::Bundle bundle = persona::open_bundle(options.bundle, options.precision);
  const persona::Parity parity = persona::check_parity(bundle);
  if (options.outputs) persona::write_safetensors(*options.outputs, parity.outputs);
  const bool passed = parity.within(bundle.program.tolerance);
  nlohmann::ordered_json report{{"model", bundle.model},
                                {"target", persona::kTarget},
                                {"precision", bundle.program.precision},
                                {"tolerance", bundle.program.tolerance},
                                {"golden_inputs", bundle.golden.size()},
                                {"passed", passed},
                                {"cases", nlohmann::ordered_json::object()}};
  for (const auto& one : parity.cases) {
    report["cases"][one.name] = {{"largest_difference", number(one.largest_difference)},
                                 {"relative_difference", number(one.relative_difference)}};
  }
  if (options.bench != 0) {
    report["median_forward_us"] = persona::median_forward_us(bundle, options.bench);
  }
  std::cout << report.dump(1) << "\n";
  return passed ? persona::kPassed : persona::kMismatch;
}

}  // namespace

int main(int argc, char** argv) {
  executorch::runtime::runtime_init();
  const executorch::extension::threadpool::NoThreadPoolGuard one_thread;
  try {
    return run(parse(argc, argv));
  } catch (const persona::RunError& error) {
    std::cerr << "persona-runner: " << error.what() << "\n";
    return persona::kRuntimeFailed;
  } catch (const std::exception& error) {
    std::cerr << "persona-runner: " << error.what() << "\n";
    return persona::kBadInput;
  }
}
