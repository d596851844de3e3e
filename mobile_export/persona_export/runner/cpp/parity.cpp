#include "parity.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "errors.h"
#include "model.h"

namespace persona {
namespace {

void compare(Case& found, const Tensor& expected, const Tensor& output) {
  double difference = 0;
  double magnitude = 1;
  if (expected.shape != output.shape) {
    difference = std::numeric_limits<double>::infinity();
  } else {
    const auto wanted = to_floats(expected);
    const auto given = to_floats(output);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const float apart = std::fabs(wanted[i] - given[i]);
      difference = std::isnan(apart) ? std::numeric_limits<double>::infinity()
                                     : std::max(difference, static_cast<double>(apart));
      magnitude = std::max(magnitude, std::fabs(static_cast<double>(wanted[i])));
      if (std::isinf(difference)) break;
    }
  }
  found.largest_difference = std::max(found.largest_difference, difference);
  found.relative_difference = std::max(found.relative_difference, difference / magnitude);
}

}  // namespace

bool Parity::within(double tolerance) const {
  return std::all_of(cases.begin(), cases.end(), [&](const Case& one) {
    return one.relative_difference <= tolerance;
  });
}

Parity check_parity(const Bundle& bundle) {
  const ProgramSpec& spec = bundle.program;
  const std::size_t inputs = bundle.golden.front().inputs.size();
  Parity parity;
  Model forward(spec, inputs);

  const auto run = [&](const std::string& name, const Values& prototype, const Values& edit,
                       const std::function<const Tensor&(const Golden&)>& expected) {
    forward.set_slots(compose(bundle.slots, bundle.base, prototype, edit, spec.carries_base));
    Case found{name};
    for (std::size_t i = 0; i < bundle.golden.size(); ++i) {
      const auto outputs = forward.run(bundle.golden[i].inputs);
      if (outputs.empty()) throw RunError("the program gives no output");
      compare(found, expected(bundle.golden[i]), outputs.front());
      parity.outputs[name + "." + std::to_string(i)] = outputs.front();
    }
    parity.cases.push_back(found);
  };

  const Values nothing = zero_change(bundle.slots);
  run("base", nothing, nothing, [](const Golden& g) -> const Tensor& { return g.base; });
  for (std::size_t k = 0; k < bundle.prototypes.size(); ++k) {
    run("prototype." + std::to_string(k), bundle.prototypes[k], nothing,
        [k](const Golden& g) -> const Tensor& { return g.prototypes[k]; });
  }
  run("edited", nothing, bundle.edit, [](const Golden& g) -> const Tensor& { return g.edited; });

  if (spec.observe) {
    Program observe(*spec.observe, inputs, {});
    const std::vector<std::string> names{"features", "posterior"};
    std::vector<Case> found{{names[0]}, {names[1]}};
    for (std::size_t i = 0; i < bundle.golden.size(); ++i) {
      const auto outputs = observe.run(bundle.golden[i].inputs);
      if (outputs.size() != names.size()) {
        throw RunError("method '" + spec.observe->method + "' must give features and posterior");
      }
      for (std::size_t j = 0; j < names.size(); ++j) {
        compare(found[j], bundle.golden[i].observed[j], outputs[j]);
        parity.outputs[names[j] + "." + std::to_string(i)] = outputs[j];
      }
    }
    parity.cases.insert(parity.cases.end(), found.begin(), found.end());
  }
  return parity;
}

}  // namespace persona
