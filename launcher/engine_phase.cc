#include "launcher/engine_phase.h"

#include "base/error.h"
#include "launcher/startup_agreement.h"

namespace skipper {

void run_phase(RankProcess& process, Engine& engine, const std::function<void()>& work) {
  run_together(process.startup(), [&] {
    if (!process.is_leader()) return engine.run();
    try {
      work();
    } catch (const CommError&) {
      throw;
    } catch (const Error&) {
      engine.finish();
      throw;
    }
    engine.finish();
  });
}

}  // namespace skipper
