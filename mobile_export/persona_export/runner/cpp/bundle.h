// What the runner needs of a bundle folder: one program, its slots, and the three tensor files.
// Signature and file digests are for `persona bundle verify`; here names, shapes, dtypes and
// finiteness are checked, so that nothing ill-formed reaches the runtime.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "safetensors.h"
#include "slots.h"

namespace persona {

constexpr const char* kTarget = "executorch-xnnpack";

struct Port {
  std::string name;
  std::string dtype;  // F32 or I64
  Shape shape;        // -1 where the caller chooses
  std::vector<std::pair<std::int64_t, std::int64_t>> free;  // limits of each -1
};

// How one tensor of a slot reaches the program: as an input, or as bytes of the head's file.
struct Feed {
  std::string tensor;
  Shape shape;
  std::optional<std::size_t> index;   // of the program's inputs
  std::optional<std::size_t> offset;  // of the patch in the head's file: 4 bytes a value
};

// A file of the bundle and the entry point in it.
struct Entry {
  std::filesystem::path path;
  std::string method;
};

struct ProgramSpec {
  std::string precision;
  Entry forward;
  std::optional<Entry> head;  // the second half, of a program in two
  std::optional<Entry> observe;
  std::vector<Feed> feeds;
  bool carries_base;  // feeds take base + prototype + edit; else prototype + edit
  double tolerance;
};

// Outputs that a program must give for one golden input.
struct Golden {
  std::vector<Tensor> inputs;
  Tensor base;
  std::vector<Tensor> prototypes;
  Tensor edited;
  std::vector<Tensor> observed;  // features and posterior, where there is an observe program
};

struct Bundle {
  std::string model;
  std::vector<Slot> slots;
  ProgramSpec program;
  Values base;
  std::vector<Values> prototypes;
  Values edit;
  std::vector<Golden> golden;
};

// Reads a bundle's first program for kTarget, of `precision` where one is asked for.
// Throws InputError.
Bundle open_bundle(const std::filesystem::path& folder,
                   const std::optional<std::string>& precision);

}  // namespace persona
