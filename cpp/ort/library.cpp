// The entry point of the library.

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "equibit/choice.h"
#include "operators.h"
#include "ort_api.h"
#include "pool.h"
#include "status.h"

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

// The operators with their domain. Sessions keep pointers to both.
struct Domain {
  Domain(const Kernels& kernels, int threads) : layers(operators(kernels, threads)), pool(threads) {}

  std::vector<Operator> layers;
  PoolOperator pool;
  CustomOpDomain* domain = nullptr;
};

int threads_of(const Api* api, const SessionOptions* options) {
  int given = 0;
  call<HasConfigEntry>(api, options, threads_entry, &given);
  if (given == 0) return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  std::size_t size = 0;
  call<GetConfigEntry>(api, options, threads_entry, static_cast<char*>(nullptr), &size);
  std::string value(size, '\0');
  call<GetConfigEntry>(api, options, threads_entry, value.data(), &size);
  const int threads = std::atoi(value.c_str());
  if (threads >= 1) return threads;
  throw Problem("equibit: the session option " + std::string(threads_entry) + " is '" + value.c_str() +
                "'; give a number of at least 1.");
}

std::unique_ptr<Domain> make_domain(const Api* api, const Kernels& kernels, int threads) {
  auto made = std::make_unique<Domain>(kernels, threads);
  call<CreateCustomOpDomain>(api, "equibit", &made->domain);
  for (const Operator& op : made->layers) {
    call<CustomOpDomainAdd>(api, made->domain, static_cast<const CustomOp*>(&op));
  }
  call<CustomOpDomainAdd>(api, made->domain, static_cast<const CustomOp*>(&made->pool));
  return made;
}

// One domain for each number of threads, kept until the process ends.
CustomOpDomain* domain_for(const Api* api, const Kernels& kernels, int threads) {
  static std::mutex mutex;
  static auto* domains = new std::map<int, std::unique_ptr<Domain>>();  // sessions may outlive static objects
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<Domain>& domain = (*domains)[threads];
  if (domain == nullptr) domain = make_domain(api, kernels, threads);
  return domain->domain;
}

void register_operators(const Api* api, SessionOptions* options) {
  static const Choice choice = choose_level();
  if (choice.level == nullptr) throw Problem("equibit: " + choice.problem);
  // Plain loops are slower than the functions in the file, which the runtime takes where we register nothing.
  if (choice.level == find_level("portable") && !choice.forced) return;
  const int threads = threads_of(api, options);
  call<AddCustomOpDomain>(api, options, domain_for(api, kernels_of(*choice.level), threads));
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
