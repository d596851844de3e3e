#include "bundle.h"

#include <algorithm>
#include <cmath>

#include "errors.h"
#include "json.h"

namespace persona {
namespace {

constexpr const char* kBundleFormat = "persona.bundle/1";

// A tensor file with the checks that all its tensors share.
class TensorFile {
 public:
  TensorFile(const std::filesystem::path& path, const std::string& format)
      : name_(path.filename().string()), tensors_(read_safetensors(path, format)) {}

  bool has(const std::string& name) const { return tensors_.count(name) != 0; }

  // Throws InputError unless the tensor is there, of one of the dtypes, and finite.
  const Tensor& finite(const std::string& name, const std::vector<std::string>& dtypes) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) throw invalid("there is no tensor '" + name + "'");
    const Tensor& tensor = found->second;
    bool known = false;
    for (const auto& dtype : dtypes) known = known || dtype == tensor.dtype;
    if (!known) {
      throw invalid("'" + name + "' must be " + dtypes.front() + ", got " + tensor.dtype);
    }
    if (tensor.dtype != "I64") {
      for (const float value : to_floats(tensor)) {
        if (!std::isfinite(value)) throw invalid("'" + name + "' holds NaN or infinity");
      }
    }
    return tensor;
  }

  const Tensor& of_shape(const std::string& name, const std::vector<std::string>& dtypes,
                         const Shape& shape) const {
    const Tensor& tensor = finite(name, dtypes);
    check_shape(name, tensor.shape, shape, tensor.shape == shape);
    return tensor;
  }

  // The value of a port: its own sizes, and where the caller chooses, one within the limits.
  const Tensor& of_port(const std::string& name, const Port& port) const {
    const Tensor& tensor = finite(name, {port.dtype});
    bool fits = tensor.shape.size() == port.shape.size();
    for (std::size_t axis = 0, next = 0; fits && axis < port.shape.size(); ++axis) {
      const auto size = tensor.shape[axis];
      if (port.shape[axis] == -1) {
        const auto& [smallest, largest] = port.free[next++];
        fits = smallest <= size && size <= largest;
      } else {
        fits = size == port.shape[axis];
      }
    }
    check_shape(name, tensor.shape, port.shape, fits);
    return tensor;
  }

  Values values(const std::string& prefix, const std::vector<std::string>& dtypes,
                const std::vector<Slot>& slots, bool stacked) const {
    Values values;
    for (const auto& slot : slots) {
      for (const auto& [suffix, shape] : stacked ? slot.feed_tensors() : slot.edit_tensors()) {
        const std::string name = slot.name + "." + suffix;
        values[name] = to_floats(of_shape(prefix + name, dtypes, shape));
      }
    }
    return values;
  }

 private:
  InputError invalid(const std::string& message) const {
    return InputError("bundle.tensors_invalid: " + name_ + ": " + message +
                      "; export the bundle again");
  }

  void check_shape(const std::string& name, const Shape& got, const Shape& wanted,
                   bool fits) const {
    if (!fits) {
      throw invalid("'" + name + "' must have shape " + to_text(wanted) + ", got " + to_text(got));
    }
  }

  std::string name_;
  Tensors tensors_;
};

Port read_port(const nlohmann::json& field) {
  Port port{field.at("name"), field.at("dtype") == "int64" ? "I64" : "F32",
            field.at("shape").get<Shape>(), {}};
  for (const auto& free : field.value("free", nlohmann::json::array())) {
    port.free.emplace_back(free.at("min"), free.at("max"));
  }
  std::size_t chosen = 0;
  for (const auto size : port.shape) chosen += size == -1 ? 1 : 0;
  if (chosen != port.free.size()) {
    throw InputError("bundle.manifest_invalid: port '" + port.name +
                     "' needs as many free dimensions as its shape has -1");
  }
  return port;
}

std::vector<Port> read_ports(const nlohmann::json& fields) {
  std::vector<Port> ports;
  for (const auto& field : fields) ports.push_back(read_port(field));
  if (ports.empty()) throw InputError("bundle.manifest_invalid: there are no inputs or outputs");
  return ports;
}

std::vector<Slot> read_slots(const nlohmann::json& fields) {
  std::vector<Slot> slots;
  for (const auto& field : fields) {
    slots.push_back({field.at("name"), field.at("kind"), field.at("out"), field.at("in"),
                     field.at("rank"), field.at("bias")});
    const auto& s = slots.back();
    const bool known = s.kind == "dense" || s.kind == "low-rank" || s.kind == "affine";
    if (!known || s.out < 1 || s.in < 0 || s.rank < 0) {
      throw InputError("bundle.manifest_invalid: slot '" + s.name +
                       "' is of no known kind or size");
    }
  }
  return slots;
}

std::optional<std::size_t> read_patch(const nlohmann::json& feed, const Shape& shape,
                                      std::uintmax_t file_size) {
  if (!feed.contains("patch") || feed.at("patch").is_null()) return std::nullopt;
  const auto& patch = feed.at("patch");
  const auto offset = patch.at("offset").get<std::uint64_t>();
  const auto length = patch.at("length").get<std::uint64_t>();
  if (patch.at("dtype") != "F32" || length != 4 * static_cast<std::uint64_t>(count(shape)) ||
      length > file_size || offset > file_size - length) {
    throw InputError("bundle.manifest_invalid: the patch of " + feed.at("tensor").dump() +
                     " must be F32 values of shape " + to_text(shape) + " within the head's " +
                     std::to_string(file_size) + " bytes, got " + patch.dump());
  }
  return static_cast<std::size_t>(offset);
}

Feed read_feed(const nlohmann::json& field, const Shape& slot, std::uintmax_t head_size) {
  Feed feed{field.at("tensor"), field.at("shape").get<Shape>(), std::nullopt, std::nullopt};
  const bool sized =
      std::all_of(feed.shape.begin(), feed.shape.end(), [](auto size) { return size > 0; });
  if (!sized || count(feed.shape) != count(slot)) {
    throw InputError("bundle.manifest_invalid: '" + feed.tensor + "' is fed with shape " +
                     to_text(feed.shape) + "; the slot has " + to_text(slot));
  }
  feed.offset = read_patch(field, feed.shape, head_size);
  if (!field.at("index").is_null()) feed.index = field.at("index").get<std::size_t>();
  if (feed.index.has_value() == feed.offset.has_value()) {
    throw InputError("bundle.manifest_invalid: " + std::string(kTarget) +
                     " wants the index or the patch of '" + feed.tensor + "'");
  }
  return feed;
}

ProgramSpec read_program(const std::filesystem::path& folder, const nlohmann::json& field,
                         const std::vector<Slot>& slots) {
  const auto entry = [&](const nlohmann::json& path, const nlohmann::json& method) {
    return Entry{folder / path.get<std::string>(), method.get<std::string>()};
  };
  ProgramSpec program{field.at("precision"),
                      entry(field.at("path"), field.at("method")),
                      std::nullopt,
                      std::nullopt,
                      {},
                      true,
                      field.at("tolerance")};
  if (!field.at("observe_path").is_null()) {
    program.observe = entry(field.at("observe_path"), field.at("observe_method"));
  }
  std::uintmax_t head_size = 0;
  if (field.contains("head") && !field.at("head").is_null()) {
    program.head = entry(field.at("head").at("path"), field.at("head").at("method"));
    head_size = read_file(program.head->path).size();
  }
  std::map<std::string, Shape> wanted;
  for (const auto& slot : slots) {
    for (const auto& [suffix, shape] : slot.feed_tensors()) {
      wanted[slot.name + "." + suffix] = shape;
    }
  }
  for (const auto& feed : field.at("feeds")) {
    const auto slot = wanted.find(feed.at("tensor").get<std::string>());
    if (slot == wanted.end()) {
      throw InputError("bundle.manifest_invalid: the feed of " + feed.at("tensor").dump() +
                       " is of no slot, or is the second of its tensor");
    }
    program.feeds.push_back(read_feed(feed, slot->second, head_size));
    program.carries_base = feed.at("carries") == "effective";
    wanted.erase(slot);
  }
  if (!wanted.empty()) {
    throw InputError("bundle.manifest_invalid: no feed takes '" + wanted.begin()->first + "'");
  }
  return program;
}

const nlohmann::json& choose_program(const nlohmann::json& programs,
                                     const std::optional<std::string>& precision) {
  for (const auto& program : programs) {
    if (program.at("target") == kTarget && (!precision || program.at("precision") == *precision)) {
      return program;
    }
  }
  throw InputError("the bundle has no program for " + std::string(kTarget) +
                   (precision ? " " + *precision : "") + "; export it with `--target " + kTarget +
                   "`");
}

std::vector<Golden> read_golden(const TensorFile& file, const std::vector<Port>& inputs,
                                const Port& output, std::size_t prototypes, bool observed) {
  std::vector<Golden> golden;
  for (std::size_t i = 0; i == 0 || file.has("base." + std::to_string(i)); ++i) {
    const std::string number = "." + std::to_string(i);
    Golden one;
    for (const auto& port : inputs) {
      one.inputs.push_back(file.of_port("input" + number + "." + port.name, port));
    }
    one.base = file.of_port("base" + number, output);
    for (std::size_t k = 0; k < prototypes; ++k) {
      one.prototypes.push_back(file.of_port("prototype." + std::to_string(k) + number, output));
    }
    one.edited = file.of_port("edited" + number, output);
    if (observed) {
      one.observed = {file.finite("features" + number, {"F32"}),
                      file.finite("posterior" + number, {"F32"})};
    }
    golden.push_back(std::move(one));
  }
  return golden;
}

Bundle read_bundle(const std::filesystem::path& folder, const nlohmann::json& manifest,
                   const std::optional<std::string>& precision) {
  if (manifest.at("format") != kBundleFormat) {
    throw InputError("bundle.manifest_invalid: expected format " + std::string(kBundleFormat) +
                     ", got " + manifest.at("format").dump() + "; use a runner of its version");
  }
  Bundle bundle;
  bundle.model = manifest.at("model");
  bundle.slots = read_slots(manifest.at("slots"));
  bundle.program =
      read_program(folder, choose_program(manifest.at("programs"), precision), bundle.slots);
  const auto path = [&](const char* field) {
    return folder / manifest.at(field).get<std::string>();
  };
  const TensorFile base(path("base"), "persona.base/1");
  const TensorFile prototypes(path("prototypes"), "persona.prototypes/1");
  const TensorFile golden(path("golden"), "persona.golden/1");
  bundle.base = base.values("", {"F32"}, bundle.slots, true);
  for (std::size_t k = 0; k < manifest.at("prototype_count").get<std::size_t>(); ++k) {
    bundle.prototypes.push_back(
        prototypes.values(std::to_string(k) + ".", {"F32", "F16"}, bundle.slots, false));
  }
  bundle.edit = golden.values("edit.", {"F32", "F16"}, bundle.slots, false);
  bundle.golden = read_golden(golden, read_ports(manifest.at("inputs")),
                              read_ports(manifest.at("outputs")).front(), bundle.prototypes.size(),
                              bundle.program.observe.has_value());
  return bundle;
}

}  // namespace

Bundle open_bundle(const std::filesystem::path& folder,
                   const std::optional<std::string>& precision) {
  const std::string invalid = "bundle.manifest_invalid: manifest.json: ";
  const auto manifest =
      parse_json(read_file(folder / "manifest.json"), Numbers::kAny, invalid, invalid);
  try {
    return read_bundle(folder, manifest, precision);
  } catch (const nlohmann::json::exception& error) {
    throw InputError(invalid + error.what());
  }
}

}  // namespace persona
