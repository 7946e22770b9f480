// The entry point of the library.

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "equibit/choice.h"
#include "operators.h"
#include "ort_api.h"
#include "pool.h"
#include "status.h"
#include "words_pool.h"

#ifdef _WIN32
#define EQUIBIT_EXPORT __declspec(dllexport)
#else
#define EQUIBIT_EXPORT __attribute__((visibility("default")))
#endif

namespace equibit::ort {

namespace {

// Threads of a session, which the runtime tells no operator; without the entry, as many as there are
// processors.
constexpr const char* threads_entry = "equibit.threads";

// Names of the operators that a session may use, with a comma behind each; without the entry, all of them.
// The runtime spends 24 KB and 60 us a session on every registered operator, more than on most files.
constexpr const char* operators_entry = "equibit.operators";

std::vector<Operator> named_operators(const Kernels& kernels, int threads,
                                      const std::optional<std::string>& names) {
  std::vector<Operator> found = operators(kernels, threads);
  const std::string list = "," + names.value_or("");
  const auto unnamed = [&](const Operator& op) {
    return list.find("," + op.name + ",") == std::string::npos;
  };
  if (names) found.erase(std::remove_if(found.begin(), found.end(), unnamed), found.end());
  return found;
}

// The operators with their domain. Sessions keep pointers to both.
struct Domain {
  Domain(const Kernels& kernels, int threads, const std::optional<std::string>& names)
      : layers(named_operators(kernels, threads, names)), pool(threads) {}

  std::vector<Operator> layers;
  PoolOperator pool;
  WordsPoolOperator words_pool;
  CustomOpDomain* domain = nullptr;
};

std::optional<std::string> config_entry(const Api* api, const SessionOptions* options, const char* name) {
  int given = 0;
  call<HasConfigEntry>(api, options, name, &given);
  if (given == 0) return std::nullopt;
  std::size_t size = 0;
  call<GetConfigEntry>(api, options, name, static_cast<char*>(nullptr), &size);
  std::string value(size, '\0');
  call<GetConfigEntry>(api, options, name, value.data(), &size);
  return value.c_str();  // size counts the final zero
}

int threads_of(const std::optional<std::string>& value) {
  if (!value) return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  const int threads = std::atoi(value->c_str());
  if (threads >= 1) return threads;
  throw Problem("equibit: the session option " + std::string(threads_entry) + " is '" + *value +
                "'; give a number of at least 1.");
}

std::unique_ptr<Domain> make_domain(const Api* api, const Kernels& kernels, int threads,
                                    const std::optional<std::string>& names) {
  auto made = std::make_unique<Domain>(kernels, threads, names);
  call<CreateCustomOpDomain>(api, "equibit", &made->domain);
  for (const Operator& op : made->layers) {
    call<CustomOpDomainAdd>(api, made->domain, static_cast<const CustomOp*>(&op));
  }
  for (const CustomOp* op :
       {static_cast<const CustomOp*>(&made->pool), static_cast<const CustomOp*>(&made->words_pool)}) {
    call<CustomOpDomainAdd>(api, made->domain, op);
  }
  return made;
}

// One domain for each number of threads and list of operators, kept until the process ends.
CustomOpDomain* domain_for(const Api* api, const Kernels& kernels, int threads,
                           const std::optional<std::string>& names) {
  using Key = std::pair<int, std::optional<std::string>>;
  static std::mutex mutex;
  static auto* domains = new std::map<Key, std::unique_ptr<Domain>>();  // sessions may outlive static objects
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<Domain>& domain = (*domains)[{threads, names}];
  if (domain == nullptr) domain = make_domain(api, kernels, threads, names);
  return domain->domain;
}

void register_operators(const Api* api, SessionOptions* options) {
  static const Choice choice = choose_level();
  if (choice.level == nullptr) throw Problem("equibit: " + choice.problem);
  // Plain loops are slower than the functions in the file, which the runtime takes where we register nothing.
  if (choice.level == find_level("portable") && !choice.forced) return;
  const int threads = threads_of(config_entry(api, options, threads_entry));
  const std::optional<std::string> names = config_entry(api, options, operators_entry);
  call<AddCustomOpDomain>(api, options, domain_for(api, kernels_of(*choice.level), threads, names));
}

}  // namespace

}  // namespace equibit::ort

// What the runtime calls when the library is given to its session options.
extern "C" EQUIBIT_EXPORT equibit::ort::Status* RegisterCustomOps(equibit::ort::SessionOptions* options,
                                                                  const equibit::ort::ApiBase* base) {
  using namespace equibit::ort;
  const Api* api = base->get_api(api_version);
  if (api == nullptr) {
    const std::string message =
        std::string("equibit: needs ONNX Runtime 1.20 or later; this is ") + base->version_string() + ".";
    return get<CreateStatus>(base->get_api(1))(fail, message.c_str());
  }
  return guarded(api, [&] { register_operators(api, options); });
}
