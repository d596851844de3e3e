#include "safetensors.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <tuple>

#include <executorch/runtime/core/portable_type/half.h>

#include "errors.h"
#include "json.h"

namespace persona {
namespace {

static_assert(sizeof(float) == 4, "tensors are read as binary32");

constexpr std::uint64_t kLongestHeader = 1 << 20;
constexpr std::size_t kMostDimensions = 8;
constexpr std::uint64_t kLargestWhole = (std::uint64_t{1} << 53) - 1;

const std::map<std::string, std::uint64_t>& dtype_bytes() {
  static const std::map<std::string, std::uint64_t> sizes{
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
      {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
      {"U32", 4},  {"F32", 4}, {"F64", 8}, {"I64", 8},     {"U64", 8}};
  return sizes;
}

struct Entry {
  std::string name;
  std::string dtype;
  Shape shape;
  std::uint64_t begin;
  std::uint64_t end;
};

std::uint64_t little_endian(const std::string& bytes) {
  std::uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | static_cast<std::uint8_t>(bytes[i]);
  return value;
}

bool is_whole_list(const nlohmann::json& value) {
  return value.is_array() && std::all_of(value.begin(), value.end(), [](const auto& v) {
           return v.is_number_unsigned();
         });
}

Entry entry(const std::string& file, const std::string& name, const nlohmann::json& fields) {
  const auto invalid = [&](const std::string& message) {
    return InputError("container.header_invalid: " + file + ": '" + name + "' " + message);
  };
  if (!fields.is_object() || fields.size() != 3 || !fields.contains("dtype") ||
      !fields.contains("shape") || !fields.contains("data_offsets")) {
    throw invalid("must have exactly dtype, shape and data_offsets");
  }
  const auto& dtype = fields["dtype"];
  if (!dtype.is_string() || !dtype_bytes().count(dtype.get<std::string>())) {
    throw invalid("has an unknown dtype " + dtype.dump());
  }
  const auto& shape = fields["shape"];
  if (!is_whole_list(shape) || shape.size() > kMostDimensions) {
    throw invalid("must have a shape of at most 8 whole numbers, got " + shape.dump());
  }
  const auto& offsets = fields["data_offsets"];
  if (!is_whole_list(offsets) || offsets.size() != 2 || offsets[0] > offsets[1]) {
    throw invalid("must have data_offsets [begin, end], got " + offsets.dump());
  }
  return {name, dtype.get<std::string>(), shape.get<Shape>(), offsets[0].get<std::uint64_t>(),
          offsets[1].get<std::uint64_t>()};
}

// Whether the bytes that dtype and shape need are those that the offsets span.
bool spans_its_size(const Entry& e) {
  std::uint64_t product = dtype_bytes().at(e.dtype);
  bool empty = false;
  for (const auto dimension : e.shape) {
    if (dimension == 0) {
      empty = true;
      continue;
    }
    const auto factor = static_cast<std::uint64_t>(dimension);
    if (product > kLargestWhole / factor) return false;
    product *= factor;
  }
  return (empty ? 0 : product) == e.end - e.begin;
}

// Rules 7 to 10 of "Container", each for all tensors before the next.
void check_layout(const std::string& file, std::vector<Entry>& entries, std::uint64_t size) {
  for (const auto& e : entries) {
    if (!spans_its_size(e)) {
      throw InputError("container.size_mismatch: " + file + ": '" + e.name + "' of type " +
                       e.dtype + " and shape " + to_text(e.shape) + " does not fill the " +
                       std::to_string(e.end - e.begin) + " bytes of its data_offsets");
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  for (const auto& e : entries) {
    if (e.end > size) {
      throw InputError("container.out_of_bounds: " + file + ": '" + e.name + "' ends at byte " +
                       std::to_string(e.end) + " of " + std::to_string(size));
    }
  }
  std::uint64_t position = 0;
  for (const auto& e : entries) {
    if (e.begin != position) {
      const std::string code = e.begin < position ? "container.overlap" : "container.hole";
      throw InputError(code + ": " + file + ": '" + e.name + "' begins at byte " +
                       std::to_string(e.begin) + ", expected " + std::to_string(position));
    }
    position = e.end;
  }
  if (position != size) {
    throw InputError("container.trailing_bytes: " + file + ": " + std::to_string(size - position) +
                     " bytes follow the last tensor");
  }
}

void check_metadata(const std::string& file, const nlohmann::json& metadata,
                    const std::string& wanted) {
  const bool strings = metadata.is_object() &&
                       std::all_of(metadata.begin(), metadata.end(),
                                   [](const auto& value) { return value.is_string(); });
  if (!strings) {
    throw InputError("container.header_invalid: " + file + ": __metadata__ must hold strings");
  }
  if (metadata != nlohmann::json{{"format", wanted}}) {
    throw InputError("bundle.tensors_invalid: " + file + " must have the metadata format = " +
                     wanted + " alone, got " + metadata.dump());
  }
}

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream || std::filesystem::is_directory(path)) {
    throw InputError("cannot read " + path.string() +
                     ": name a bundle folder made by `persona export`");
  }
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

Tensors read_safetensors(const std::filesystem::path& path, const std::string& wanted) {
  const std::string data = read_file(path);
  const std::string file = path.filename().string();
  if (data.size() < 8) {
    throw InputError("container.truncated: " + file + " has " + std::to_string(data.size()) +
                     " bytes, expected 8 of header length; copy the bundle again");
  }
  const std::uint64_t length = little_endian(data);
  if (length > kLongestHeader) {
    throw InputError("container.header_too_long: " + file + ": the header says it has " +
                     std::to_string(length) + " bytes; at most " +
                     std::to_string(kLongestHeader) + " are allowed");
  }
  if (data.size() - 8 < length) {
    throw InputError("container.truncated: " + file + ": the header wants " +
                     std::to_string(length) + " bytes, but " + std::to_string(data.size() - 8) +
                     " follow; copy the bundle again");
  }
  const std::string text = data.substr(8, length);
  const std::string invalid = "container.header_invalid: " + file + ": ";
  if (text.empty() || text[0] != '{') throw InputError(invalid + "the header must begin with '{'");
  auto header = parse_json(text, Numbers::kWholeOnly, invalid,
                           "container.duplicate_key: " + file + ": ");
  const nlohmann::json metadata = header.value("__metadata__", nlohmann::json::object());
  header.erase("__metadata__");
  std::vector<Entry> entries;
  for (const auto& [name, fields] : header.items()) entries.push_back(entry(file, name, fields));
  const std::size_t start = 8 + static_cast<std::size_t>(length);
  check_layout(file, entries, data.size() - start);
  check_metadata(file, metadata, wanted);
  Tensors tensors;
  for (const auto& e : entries) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(data.data()) + start;
    tensors[e.name] = {e.dtype, e.shape, {bytes + e.begin, bytes + e.end}};
  }
  return tensors;
}

void write_safetensors(const std::filesystem::path& path, const Tensors& tensors) {
  nlohmann::ordered_json header;
  std::size_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    const std::size_t end = offset + tensor.bytes.size();
    header[name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  std::ofstream stream(path, std::ios::binary);
  for (std::uint64_t i = 0, length = text.size(); i < 8; ++i) {
    stream.put(static_cast<char>(length >> (8 * i)));
  }
  stream << text;
  for (const auto& [name, tensor] : tensors) {
    stream.write(reinterpret_cast<const char*>(tensor.bytes.data()),
                 static_cast<std::streamsize>(tensor.bytes.size()));
  }
  stream.close();
  if (!stream) throw InputError("cannot write " + path.string() + "; choose another place");
}

std::vector<float> to_floats(const Tensor& tensor) {
  const auto size = static_cast<std::size_t>(count(tensor.shape));
  std::vector<float> values(size);
  if (tensor.dtype == "F32") {
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
  }
  for (std::size_t i = 0; i < size; ++i) {
    executorch::runtime::etensor::Half half;
    std::memcpy(&half, tensor.bytes.data() + 2 * i, 2);
    values[i] = static_cast<float>(half);
  }
  return values;
}

Tensor from_floats(const Shape& shape, const std::vector<float>& values) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(values.data());
  return {"F32", shape, {bytes, bytes + 4 * values.size()}};
}

std::int64_t count(const Shape& shape) {
  std::int64_t product = 1;
  for (const auto dimension : shape) product *= dimension;
  return product;
}

std::string to_text(const Shape& shape) { return nlohmann::json(shape).dump(); }

}  // namespace persona
