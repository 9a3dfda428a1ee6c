// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "call.hpp"
#include "host_runner/wasm/wasi/context.hpp"

namespace host_runner::wasm::worker {

namespace {

using protocol::CallStatus;

class ModuleExecutor final : public Executor {
public:
    ModuleExecutor(const Start& start, Engine engine, Program program)
        : start_(start), engine_(std::move(engine)), program_(std::move(program)) {}

    void run(Call& call, CallOutput& output, const std::function<void()>& on_start,
             protocol::InvokeResult& result) override {
        const auto conclude = [&](CallStatus status, std::string message = {}) {
            result.status = status;
            result.message = std::move(message);
        };
        const auto context = make_context(call, output);
        if (!context)
            return conclude(CallStatus::bad_request, context.error().describe());
        CallRequest request;
        request.limits.memory_bytes = start_.request.memory_bytes;
        request.deadline = call.limits();
        request.state = context->get();
        (*context)->set_deadline(request.deadline);
        on_start();
        const auto outcome = engine_.call(program_, request);
        if (!outcome)
            return conclude(CallStatus::failed, outcome.error().describe());
        result.memory_peak_bytes = outcome->memory_peak_bytes;
        switch (outcome->end) {
        case CallEnd::returned:
        case CallEnd::exited:
            (*context)->close_files();
            result.code = visible_exit_code((*context)->exit_code().value_or(0));
            return conclude(CallStatus::exit);
        case CallEnd::trapped:
            return conclude(CallStatus::trap, describe_trap(*outcome));
        case CallEnd::timed_out:
            return conclude(CallStatus::timeout);
        case CallEnd::cancelled:
            return conclude(CallStatus::cancelled);
        case CallEnd::out_of_memory:
            return conclude(CallStatus::oom, outcome->message);
        case CallEnd::limit:
            return conclude(CallStatus::limit, outcome->message);
        case CallEnd::host_failed:
            break;
        }
        conclude(CallStatus::failed, outcome->message);
    }

private:
    [[nodiscard]] Result<std::unique_ptr<wasi::Context>> make_context(Call& call,
                                                                      CallOutput& output) const {
        wasi::OutputOptions captured;
        captured.max_output_bytes = 0; // nothing is kept here
        captured.max_error_bytes = 0;
        captured.when_full = wasi::WhenFull::drop;
        captured.sink = [&output](wasi::OutputStream stream, std::string_view bytes) {
            // Where the call is over, the engine ends it.
            output.write(stream == wasi::OutputStream::standard_output
                             ? protocol::FrameKind::output
                             : protocol::FrameKind::error_output,
                         bytes);
        };
        const auto streams = std::make_shared<wasi::Output>(std::move(captured));
        wasi::ContextOptions options;
        options.arguments = start_.request.arguments;
        options.arguments.insert(options.arguments.end(), call.request.arguments.begin(),
                                 call.request.arguments.end());
        for (const auto& [name, value] : call.request.environment)
            options.environment.emplace_back(name, value);
        for (const auto& variable : start_.environment)
            if (!call.request.environment.contains(variable.first))
                options.environment.push_back(variable);
        options.files.emplace_back(wasi::HostStream{std::move(call.input_reader)});
        options.files.emplace_back(wasi::CaptureOut{streams, wasi::OutputStream::standard_output});
        options.files.emplace_back(wasi::CaptureOut{streams, wasi::OutputStream::standard_error});
        std::vector<std::string> names{"stdin", "stdout", "stderr"};
        if (start_.request.has_files) {
            HR_TRY(auto root, open_root());
            options.files.push_back(std::move(root));
            names.emplace_back("/");
        }
        add_names(options.environment, names);
        return wasi::Context::create(std::move(options));
    }

    const Start& start_;
    Engine engine_;
    Program program_;
};

} // namespace

Result<std::unique_ptr<Executor>> make_module_executor(Start& start) {
    EngineSettings settings;
    settings.places = start.request.calls.calls;
    settings.max_memory_bytes = start.request.memory_bytes;
    HR_TRY(auto engine, Engine::make(settings));
    HR_TRY(auto program, load_program(engine, start));
    return std::make_unique<ModuleExecutor>(start, std::move(engine), std::move(program));
}

} // namespace host_runner::wasm::worker
