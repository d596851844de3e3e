// JSON as docs/edit-format.md reads it ("Strict JSON"): one meaning or none.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace persona {

enum class Numbers { kAny, kWholeOnly };

// Parses `text`. Throws InputError, beginning with `invalid` or, where an object has a key twice
// and nothing else is wrong, with `repeated`.
nlohmann::json parse_json(const std::string& text, Numbers numbers, const std::string& invalid,
                          const std::string& repeated);

}  // namespace persona
