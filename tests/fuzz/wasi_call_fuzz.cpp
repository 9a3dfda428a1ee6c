// SPDX-License-Identifier: Apache-2.0
// A hostile guest: calls of preview 1 with any arguments on a memory of any bytes.
//
// Input: the number of calls (1 byte), per call the function (1 byte) and nine arguments (4 bytes
// each), then the memory's first bytes. Small numbers come often, since descriptors are small.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <sys/socket.h>

#include "host_runner/wasm/wasi/context.hpp"
#include "host_runner/wasm/wasi/preview1.hpp"

namespace {

using namespace host_runner;
using namespace host_runner::wasm;

/// A folder that the guests may fill; emptied when it has become large, removed at the end.
class Playground {
public:
    Playground() : path_(std::filesystem::temp_directory_path() / "host-runner-fuzz-XXXXXX") {
        if (::mkdtemp(path_.data()) == nullptr)
            std::abort();
    }
    Playground(const Playground&) = delete;
    Playground& operator=(const Playground&) = delete;
    ~Playground() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    const std::string& prepare() {
        constexpr int runs_between = 500;
        if (++runs_ % runs_between == 0)
            for (const auto& entry : std::filesystem::directory_iterator(path_))
                std::filesystem::remove_all(entry);
        return path_;
    }

private:
    std::string path_;
    int runs_ = 0;
};

class Input {
public:
    Input(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}
    template <class T>
    T take() {
        T value{};
        const auto count = std::min(sizeof value, rest_.size());
        std::memcpy(&value, rest_.data(), count);
        rest_ = rest_.subspan(count);
        return value;
    }
    [[nodiscard]] std::span<const std::uint8_t> rest() const {
        return rest_;
    }

private:
    std::span<const std::uint8_t> rest_;
};

std::vector<wasi::File> files(const std::string& folder) {
    std::vector<wasi::File> list;
    list.emplace_back(wasi::BytesIn{"input"});
    auto output = std::make_shared<wasi::Output>(wasi::OutputOptions{});
    list.emplace_back(wasi::CaptureOut{output, wasi::OutputStream::standard_output});
    list.emplace_back(wasi::NullFile{});
    list.emplace_back(wasi::open_directory(folder, "/", wasi::Access::read_write).value());
    list.emplace_back(wasi::open_directory(folder, "/ro", wasi::Access::read_only).value());
    std::array<int, 2> pair{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0)
        std::abort();
    list.emplace_back(wasi::Stream{UniqueFd(pair[0]), nullptr});
    list.emplace_back(wasi::HostStream{UniqueFd(pair[1])});
    return list;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static Playground playground;
    constexpr std::size_t memory_bytes = 65536;
    constexpr int max_calls = 16;
    constexpr std::size_t most_parameters = 9;

    wasi::ContextOptions options;
    options.arguments = {"main.wasm"};
    options.files = files(playground.prepare());
    options.max_open_files = 16;
    auto context = wasi::Context::create(std::move(options)).value();
    // What would wait traps instead.
    context->set_deadline({.at = std::chrono::steady_clock::now(), .cancel_fd = -1});

    Input input(data, size);
    struct Planned {
        std::size_t function;
        std::array<std::uint64_t, most_parameters> arguments;
    };
    std::vector<Planned> calls(input.take<std::uint8_t>() % (max_calls + 1));
    for (auto& call : calls) {
        call.function = input.take<std::uint8_t>() % wasi::preview1_functions().size();
        for (auto& argument : call.arguments)
            argument = input.take<std::uint32_t>();
    }
    std::vector<std::byte> memory(memory_bytes);
    const auto bytes = input.rest().first(std::min(input.rest().size(), memory.size()));
    std::memcpy(memory.data(), bytes.data(), bytes.size());
    for (const auto& call : calls) {
        const auto& function = wasi::preview1_functions()[call.function];
        HostCall host_call{context.get(), memory,
                           std::span(call.arguments).first(function.parameters.size())};
        static_cast<void>(function.call(host_call));
    }
    context->close_files();
    return 0;
}
