// The safetensors container, read strictly: header, then tensor bytes without hole or overlap.
// docs/edit-format.md ("Container") specifies the rules, their order and their codes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace persona {

using Shape = std::vector<std::int64_t>;

// A tensor as the container holds it: dtype name, shape, and little-endian bytes row by row.
struct Tensor {
  std::string dtype;
  Shape shape;
  std::vector<std::uint8_t> bytes;
};

using Tensors = std::map<std::string, Tensor>;

// The whole file. Throws InputError where it cannot be read.
std::string read_file(const std::filesystem::path& path);

// Reads a bundle's tensor file, whose metadata must be `format` = `wanted` alone.
// Throws InputError with a `container.*` or `bundle.tensors_invalid` code.
Tensors read_safetensors(const std::filesystem::path& path, const std::string& wanted);

// Writes F32 tensors, in the order of their names.
void write_safetensors(const std::filesystem::path& path, const Tensors& tensors);

// Binary32 values of an F32 or F16 tensor, as many as its shape says.
std::vector<float> to_floats(const Tensor& tensor);

// F32 tensor of these values.
Tensor from_floats(const Shape& shape, const std::vector<float>& values);

std::int64_t count(const Shape& shape);
std::string to_text(const Shape& shape);

}  // namespace persona
