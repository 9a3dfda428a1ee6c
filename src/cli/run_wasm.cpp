// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <optional>
#include <thread>

#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "backend.hpp"
#include "function_call.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/log.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/cli/run_view.hpp"
#include "host_runner/cli/vm_options.hpp"
#include "host_runner/instance/control.hpp"
#include "host_runner/instance/run.hpp"
#include "host_runner/protocol/channel.hpp"
#include "host_runner/spec/wasm_module.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

namespace {

constexpr std::string_view service = "module";
constexpr std::chrono::seconds answer_patience{10};
constexpr std::size_t max_module_bytes = 64 * mib; // what the guest's compiler takes

/// A compose file for one module, in a folder that is gone when the run has ended.
class OneModule {
public:
    static Result<OneModule> make(const std::string& module, std::uint64_t memory_bytes) {
        HR_TRY(const auto path, canonical_path(module));
        HR_CHECK(check(path).map_error([&module](Error error) {
            error.message = fmt::format("{}: {}", module, error.message);
            return error;
        }));
        const char* parent = std::getenv("TMPDIR"); // NOLINT(concurrency-mt-unsafe): one thread
        OneModule one;
        one.folder_ = join_path(parent == nullptr || *parent == '\0' ? "/tmp" : parent,
                                "host-runner-module.XXXXXX");
        if (::mkdtemp(one.folder_.data()) == nullptr)
            return fail_errno(fmt::format("Cannot make the folder {}", one.folder_), errno);
        one.link_ = join_path(one.folder_, base_name(path));
        if (::symlink(path.c_str(), one.link_.c_str()) != 0)
            return fail_errno(fmt::format("Cannot make {}", one.link_), errno);
        // JSON is YAML.
        const nlohmann::ordered_json compose{
            {"name", service},
            {"services",
             {{service,
               {{"image", "./" + base_name(path)},
                {"platform", "wasi/wasm"},
                {"x-world", "function"},
                {"x-limits",
                 {{"memory", memory_bytes},
                  {"timeout", "8760h"}, // a year, the longest there is
                  {"calls", 1},
                  {"output", "none"}}}}}}}};
        HR_CHECK(write_file_atomic(one.compose_path(), compose.dump(), 0600));
        return one;
    }
    OneModule(OneModule&& other) noexcept
        : folder_(std::exchange(other.folder_, {})), link_(std::move(other.link_)) {}
    OneModule& operator=(OneModule&&) = delete;
    OneModule(const OneModule&) = delete;
    OneModule& operator=(const OneModule&) = delete;
    ~OneModule() {
        if (folder_.empty())
            return;
        static_cast<void>(::unlink(link_.c_str()));
        static_cast<void>(::unlink(compose_path().c_str()));
        static_cast<void>(::rmdir(folder_.c_str()));
    }
    [[nodiscard]] std::string compose_path() const {
        return join_path(folder_, "compose.yaml");
    }

private:
    OneModule() = default;
    /// Here rather than by the compose file's reader, which would name a place in our own text.
    static Result<void> check(const std::string& path) {
        HR_TRY(const auto bytes, read_file(path, max_module_bytes));
        HR_TRY(const auto described, spec::describe_wasm(bytes));
        HR_TRY(const auto world, spec::guess_world(described));
        if (world != protocol::World::command)
            return fail(ErrorCode::unsupported,
                        fmt::format("It is for the world {}, not a program", to_string(world)),
                        "name it in a compose file: image: ./NAME.wasm");
        return {};
    }
    std::string folder_;
    std::string link_;
};

/// The settings of `run` that are not this verb's do not matter: a name, ports or a restart from
/// a configuration file are for services.
Result<spec::VmSpec> make_spec(const Context& context, const std::string& compose_path) {
    config::Settings::CommandLine given;
    for (const auto& [name, values] : context.invocation.options)
        if (const auto* option = config::find_option("run", name); option != nullptr)
            given.emplace(name, values);
    HR_TRY(const auto settings, config::Settings::settle("run", context.places, given));
    HR_TRY(auto spec, make_vm_spec(settings));
    const auto is_default = [&settings](std::string_view name) {
        return settings.get(name).origin == config::Origin::built_in;
    };
    if (is_default("cpus"))
        spec.cpus = 1;
    if (is_default("memory"))
        spec.memory_bytes = 512 * mib;
    if (is_default("disk"))
        spec.disk_bytes = gib;
    spec.compose_path = compose_path;
    spec.env_file.clear();
    spec.name.clear();
    spec.ports.clear();
    spec.host_services.clear();
    spec.restart = {};
    return spec;
}

/// Calls the module once the VM is ready, on a thread of its own, and then has the VM stopped.
///
/// The stop is asked for as `host_runner stop` does: a signal to ourselves would end us where the
/// VM, and with it the loop that takes signals, has ended before the call.
class Caller {
public:
    explicit Caller(FunctionCall call) : call_(std::move(call)) {}
    Caller(const Caller&) = delete;
    Caller& operator=(const Caller&) = delete;
    ~Caller() {
        if (thread_.joinable())
            thread_.join();
    }

    [[nodiscard]] bool has_begun() const noexcept {
        return thread_.joinable();
    }
    void begin(const instance::InstancePaths& paths) {
        thread_ = std::thread([this, paths] {
            answer_ = call(paths.channel_socket(protocol::invocation_ports.front()));
            stop(paths);
        });
    }
    /// In place of begin(): the VM will not become ready.
    void give_up(const instance::InstancePaths& paths) {
        thread_ = std::thread([paths] { stop(paths); });
    }
    /// After the VM's end. nullopt: the module was not called.
    [[nodiscard]] std::optional<Result<FunctionAnswer>> finish() {
        if (thread_.joinable())
            thread_.join();
        return std::move(answer_);
    }

private:
    static void stop(const instance::InstancePaths& paths) {
        if (const auto stopped =
                instance::request_stop(paths.control_socket(), paths.lock(), {}, {});
            !stopped)
            print_error(stopped.error());
    }
    [[nodiscard]] Result<FunctionAnswer> call(const std::string& socket) const {
        HR_TRY(const auto loop, EventLoop::create());
        HR_TRY(const auto session, instance::FunctionSession::open(*loop, socket, answer_patience));
        return run_function_call(*loop, *session, call_);
    }

    FunctionCall call_;
    std::thread thread_;
    std::optional<Result<FunctionAnswer>> answer_;
};

/// Its stdout is the module's. Progress is for people who wait, not for what reads stderr.
std::unique_ptr<RunView> make_view() {
    const auto to_stderr = [](std::string_view text) {
        print_err(text);
    };
    return ::isatty(STDERR_FILENO) == 1 ? make_plain_view({to_stderr, to_stderr}) : nullptr;
}

} // namespace

VerbResult run_verb_run_wasm(const Context& context) {
    using Kind = instance::RunEvent::Kind;
    const auto& settings = context.settings;
    FunctionCall call;
    call.request.function = service;
    call.request.arguments = context.invocation.arguments.at(1);
    call.forward_stdin = true;
    HR_TRY(const auto variables, settings.parsed_list("env", parse_variable));
    for (const auto& [name, value] : variables)
        call.request.environment[name] = value;
    HR_CHECK(protocol::encode_invoke_request(call.request)); // before a VM is started for it
    HR_TRY(const auto memory_bytes, settings.parsed("module-memory", parse_size));
    HR_TRY(const auto module, OneModule::make(context.argument(0), memory_bytes));
    HR_TRY(const auto spec, make_spec(context, module.compose_path()));
    HR_TRY(const auto registry, open_registry());
    HR_TRY(const auto level, settings.parsed("log-level", log::parse_level));
    // That the VM is stopped in the end is no news.
    if (settings.get("log-level").origin == config::Origin::built_in)
        log::set_up(log::Level::warn);

    const auto view = level == log::Level::off ? nullptr : make_view();
    Caller caller(std::move(call));
    std::string id;
    std::string boot_error;
    const auto follow = [&](const instance::RunEvent& event) {
        if (event.kind == Kind::created)
            id = event.text;
        if (caller.has_begun())
            return;
        if (view)
            view->on_event(event);
        if (event.kind == Kind::boot_error) {
            boot_error = event.text;
            caller.give_up(registry.paths(id));
        } else if (event.kind == Kind::ready) {
            caller.begin(registry.paths(id));
        }
    };
    const auto backend = backend_of(spec);
    HR_TRY(const auto outcome, instance::run_instance(spec, follow, {}, backend.get()));
    const auto answer = caller.finish();
    if (!answer) {
        print_err(fmt::format("host_runner: The module did not run: {}\n",
                              boot_error.empty() ? describe_end(outcome.end) : boot_error));
        if (!boot_error.empty())
            return to_int(ExitCode::guest_boot_error);
        return outcome.end.exit_code == ExitCode::success ? to_int(ExitCode::failure)
                                                          : to_int(outcome.end.exit_code);
    }
    HR_CHECK(*answer);
    print_end(base_name(context.argument(0)), (*answer)->result);
    return exit_code_of((*answer)->result);
}

} // namespace host_runner::cli
