#include "json.h"

#include <cstdint>
#include <set>
#include <vector>

#include "errors.h"

namespace persona {
namespace {

constexpr int kDeepest = 64;
constexpr std::uint64_t kLargestWhole = (std::uint64_t{1} << 53) - 1;

bool is_whole(const nlohmann::json& value) {
  return value.is_number_unsigned() && value.get<std::uint64_t>() <= kLargestWhole;
}

}  // namespace

nlohmann::json parse_json(const std::string& text, Numbers numbers, const std::string& invalid,
                          const std::string& repeated) {
  using Event = nlohmann::json::parse_event_t;
  std::vector<std::set<std::string>> open;
  std::string twice;
  bool has_repeated = false;
  const auto check = [&](int depth, Event event, nlohmann::json& value) {
    switch (event) {
      case Event::object_start:
      case Event::array_start:
        if (depth >= kDeepest) throw InputError(invalid + "nested more than 64 deep");
        if (event == Event::object_start) open.emplace_back();
        break;
      case Event::object_end:
        open.pop_back();
        break;
      case Event::key:
        if (!open.back().insert(value.get<std::string>()).second && !has_repeated) {
          twice = value.get<std::string>();
          has_repeated = true;
        }
        break;
      case Event::value:
        if (numbers == Numbers::kWholeOnly && value.is_number() && !is_whole(value)) {
          throw InputError(invalid + "numbers must be whole, in digits alone, below 2^53, got " +
                           value.dump());
        }
        break;
      case Event::array_end:
        break;
    }
    return true;
  };
  nlohmann::json document;
  try {
    if (text.rfind("\xEF\xBB\xBF", 0) == 0) {
      throw InputError(invalid + "begins with a byte order mark");
    }
    document = nlohmann::json::parse(text, check);
  } catch (const nlohmann::json::exception& error) {
    throw InputError(invalid + error.what());
  }
  if (has_repeated) throw InputError(repeated + "the key '" + twice + "' stands twice");
  return document;
}

}  // namespace persona
