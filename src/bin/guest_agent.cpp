// SPDX-License-Identifier: Apache-2.0
#include <iostream>
#include <string>
#include <vector>

#include <sys/auxv.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <openssl/crypto.h>

#include "host_runner/agent/boot.hpp"
#include "host_runner/agent/init.hpp"
#include "host_runner/agent/native.hpp"
#include "host_runner/agent/service_launch.hpp"
#include "host_runner/base/exit_code.hpp"
#include "host_runner/base/version.hpp"
#include "host_runner/wasm/compile.hpp"
#include "host_runner/wasm/worker/worker.hpp"

int main(int argc, char** argv) {
    using namespace host_runner;
    // The path that the kernel executed (getauxval(3)): known without /proc.
    const std::string program =
        reinterpret_cast<const char*>(::getauxval(AT_EXECFN)); // NOLINT: an address by contract
    if (::getpid() == 1)
        agent::run_init(program);

    CLI::App app(
        "Runs inside a host_runner VM: as PID 1 it boots the guest, starts the services of "
        "the compose file and answers its runner. With --dev it runs the services of a compose "
        "file on this machine instead, without a VM, to try them quickly",
        "guest_agent");
    app.set_version_flag("--version", fmt::format("guest_agent {} (OpenSSL {})", version,
                                                  OpenSSL_version(OPENSSL_VERSION_STRING)));
    app.require_subcommand(0, 1);
    agent::NativeOptions native;
    auto* dev = app.add_option("--dev", native.compose_path,
                               "Run the services of this compose file here. It isolates nothing "
                               "beyond WebAssembly itself")
                    ->option_text("COMPOSE_FILE");
    app.add_option("-p,--ports", native.ports,
                   "With --dev: where a port of a WebAssembly service is reached, as "
                   "tcp:[ADDRESS]:HOST_PORT:PORT; host port 0 takes any")
        ->option_text("MAPPING")
        ->allow_extra_args(false)
        ->needs(dev);
    app.add_option("--env-file", native.env_file,
                   "With --dev: NAME=value lines for the environment of every service")
        ->option_text("FILE")
        ->needs(dev);
    app.add_option("--state", native.state,
                   "With --dev: the folder of volumes, logs and compiled modules (default: "
                   ".host-runner-dev/NAME beside the compose file)")
        ->option_text("FOLDER")
        ->needs(dev);
    auto* boot = app.add_subcommand("boot", "The agent proper; PID 1 starts it");
    auto* launch = app.add_subcommand("launch", "Becomes a service's program; the agent starts it");
    std::string request;
    launch->add_option("REQUEST", request, "What to run and how, as JSON")->required();
    auto* compile =
        app.add_subcommand("compile", "Compiles one WebAssembly module, from descriptor 0 to 3");
    std::vector<std::string> limits;
    compile
        ->add_option("LIMIT", limits,
                     "Bytes of module, artifact and memory; seconds of processor time")
        ->required();
    auto* worker = app.add_subcommand("worker", "Runs one WebAssembly module; `launch` becomes it");
    worker->add_option("REQUEST", request, "What to run and how, as JSON")->required();
    try {
        app.parse(argc, argv);
        if (app.get_subcommands().empty() == dev->empty())
            throw CLI::RequiredError("Either a subcommand or --dev COMPOSE_FILE");
    } catch (const CLI::ParseError& error) {
        const int code = app.exit(error);
        return code == 0 ? 0 : static_cast<int>(ExitCode::usage);
    }
    if (!dev->empty())
        return agent::run_native(native, program);
    if (boot->parsed())
        return agent::run_agent({}, program);
    if (compile->parsed())
        return wasm::compile_main(limits);
    if (worker->parsed())
        return wasm::worker::worker_main(request);
    const auto decoded = agent::decode_launch_request(request);
    if (!decoded) {
        std::cerr << "guest_agent: " << decoded.error().describe() << '\n';
        return static_cast<int>(ExitCode::usage);
    }
    return agent::launch_service(*decoded);
}
