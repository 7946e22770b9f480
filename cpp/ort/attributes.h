// The attributes of a node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ort_api.h"
#include "status.h"

namespace equibit::ort {

class Attributes {
 public:
  Attributes(const Api* api, const KernelInfo* info) : api_(api), info_(info) {}

  std::vector<std::int64_t> ints(const char* name) const {
    std::size_t count = 0;
    call<GetIntsAttribute>(api_, info_, name, static_cast<std::int64_t*>(nullptr), &count);
    std::vector<std::int64_t> values(count);
    if (count > 0) call<GetIntsAttribute>(api_, info_, name, values.data(), &count);
    return values;
  }

  std::vector<std::int64_t> ints(const char* name, std::size_t count) const {
    const std::vector<std::int64_t> values = ints(name);
    if (values.size() == count) return values;
    throw Problem("the attribute " + std::string(name) + " has " + std::to_string(values.size()) +
                  " values, not " + std::to_string(count) + ".");
  }

  std::int64_t integer(const char* name) const {
    std::int64_t value = 0;
    call<GetIntAttribute>(api_, info_, name, &value);
    return value;
  }

  float number(const char* name) const {
    float value = 0;
    call<GetFloatAttribute>(api_, info_, name, &value);
    return value;
  }

  // The name that the exporter gave the node: for a layer, that of the layer.
  std::string node_name() const {
    std::size_t size = 0;
    call<GetNodeName>(api_, info_, static_cast<char*>(nullptr), &size);
    std::string name(size, '\0');
    if (size > 0) call<GetNodeName>(api_, info_, name.data(), &size);
    return name.c_str();  // without the zero at the end
  }

 private:
  const Api* api_;
  const KernelInfo* info_;
};

}  // namespace equibit::ort
