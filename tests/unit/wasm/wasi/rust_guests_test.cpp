// SPDX-License-Identifier: Apache-2.0
//
// Real guests on a real engine: the modules that rustc made of tests/fixtures/wasm/rust_*.rs. What
// they put out is the same with wasmtime, but for what tests/wasmtime/compare.py lists.
#include <array>
#include <filesystem>
#include <future>

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "fakes/golden_file.hpp"
#include "fakes/temporary_directory.hpp"
#include "host_runner/wasm/wasi/context.hpp"
#include "host_runner/wasm/wasi/preview1.hpp"
#include "unit/wasm/engine_fixture.hpp"

namespace host_runner::wasm::wasi {
namespace {

namespace fs = std::filesystem;
using host_runner::tests::matches_golden;
using host_runner::tests::TemporaryDirectory;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

struct Ending {
    CallEnd end = CallEnd::host_failed;
    std::string out;
    std::string err;
    std::optional<std::uint32_t> code;
};

class RustGuest : public testing::Test {
protected:
    Ending run(const std::string& name, std::vector<std::string> arguments) {
        static const auto engine = wasm::tests::make_engine({.places = 1});
        auto output =
            std::make_shared<Output>(OutputOptions{.max_output_bytes = std::size_t{16} << 20U});
        ContextOptions options;
        options.arguments = std::move(arguments);
        options.arguments.insert(options.arguments.begin(), name);
        options.environment = environment;
        options.files.emplace_back(BytesIn{input});
        options.files.emplace_back(CaptureOut{output, OutputStream::standard_output});
        options.files.emplace_back(CaptureOut{output, OutputStream::standard_error});
        for (auto& file : files)
            options.files.push_back(std::move(file));
        files.clear();
        const auto context = Context::create(std::move(options));
        EXPECT_TRUE(context) << context.error().describe();
        CallRequest call;
        call.state = context->get();
        const auto program = wasm::tests::make_program(engine, name, preview1_functions());
        const auto outcome = engine.call(program, call);
        EXPECT_TRUE(outcome) << outcome.error().describe();
        (*context)->close_files();
        return {outcome->end, std::string(output->bytes(OutputStream::standard_output)),
                std::string(output->bytes(OutputStream::standard_error)), (*context)->exit_code()};
    }
    std::string input;
    std::vector<std::pair<std::string, std::string>> environment;
    std::vector<File> files; ///< From descriptor 3 on.
};

TEST_F(RustGuest, sees_its_arguments_and_variables) {
    EXPECT_EQ(run("rust_process", {"arguments", "two words", "", "gr\u00fc\u00df"}).out,
              "[rust_process]\n[arguments]\n[two words]\n[]\n[gr\u00fc\u00df]\n");
    environment = {{"GREETING", "hello = world"}, {"EMPTY", ""}};
    EXPECT_EQ(run("rust_process", {"environment"}).out, "GREETING=[hello = world]\nEMPTY=[]\n");
}

TEST_F(RustGuest, reads_its_input_to_the_end) {
    EXPECT_EQ(run("rust_process", {"echo"}).out, "0 bytes\n");
    input = std::string(100'000, 'x') + std::string("\0\xff\n", 3);
    EXPECT_EQ(run("rust_process", {"echo"}).out, input + "100003 bytes\n");
}

TEST_F(RustGuest, keeps_its_outputs_apart_and_loses_nothing) {
    const auto both = run("rust_process", {"both"});
    EXPECT_EQ(both.out, "to the output\n");
    EXPECT_EQ(both.err, "to the error output\n");
    constexpr std::size_t line_bytes = 14;
    EXPECT_EQ(run("rust_process", {"flood"}).out.size(), 40'000 * line_bytes);
}

TEST_F(RustGuest, ends_with_its_code) {
    EXPECT_EQ(run("rust_process", {"both"}).code, std::nullopt);
    EXPECT_EQ(run("rust_process", {"fail"}).code, 1U);
    EXPECT_EQ(run("rust_process", {"exit", "-1"}).code, 0xFFFF'FFFFU);
    const auto exited = run("rust_process", {"exit", "7"});
    EXPECT_EQ(exited.end, CallEnd::exited);
    EXPECT_EQ(exited.code, 7U);
}

TEST_F(RustGuest, traps_when_it_panics_and_is_stopped_when_it_recurses) {
    const auto panicked = run("rust_process", {"panic"});
    EXPECT_EQ(panicked.end, CallEnd::trapped);
    EXPECT_THAT(panicked.err, StartsWith("thread 'main' panicked at 'at the disco'"));
    EXPECT_EQ(run("rust_process", {"recurse"}).end, CallEnd::limit);
}

TEST_F(RustGuest, has_clocks_and_random_numbers_and_no_threads) {
    for (const auto* deed : {"time", "random"}) {
        const auto ending = run("rust_process", {deed});
        EXPECT_EQ(ending.end, CallEnd::returned) << deed;
        EXPECT_THAT(ending.out, HasSubstr(": right\n"));
        EXPECT_THAT(ending.out, testing::Not(HasSubstr("WRONG")));
    }
    EXPECT_THAT(run("rust_process", {"thread"}).out, HasSubstr("not supported"));
}

/// What rust_files and rust_calls expect.
class RustGuestWithFiles : public RustGuest {
protected:
    /// Runs in a new folder.
    Ending run_in(const std::string& name, std::vector<std::string> arguments, Access access) {
        folder_ = std::make_unique<TemporaryDirectory>();
        EXPECT_TRUE(write_file_atomic(*folder_ / "given", "given\n", 0600));
        fs::create_directory(*folder_ / "odd");
        EXPECT_TRUE(write_file_atomic(*folder_ / "odd/plain", "", 0600));
        EXPECT_TRUE(write_file_atomic(*folder_ / "odd/\xff", "", 0600));
        EXPECT_EQ(::mkfifo((*folder_ / "fifo").c_str(), 0600), 0);
        fs::create_symlink("given", *folder_ / "to_given");
        fs::create_symlink("../out", *folder_ / "out");
        fs::create_symlink("/given", *folder_ / "absolute");
        fs::create_symlink("circle", *folder_ / "circle");
        auto root = open_directory(folder_->path(), "/", access);
        EXPECT_TRUE(root) << root.error().describe();
        files.emplace_back(std::move(*root));
        return run(name, std::move(arguments));
    }
    std::vector<std::string> names() const {
        std::vector<std::string> found;
        for (const auto& entry : fs::recursive_directory_iterator(folder_->path()))
            found.push_back(entry.path().lexically_relative(folder_->path()));
        std::sort(found.begin(), found.end());
        return found;
    }
    std::string content(const std::string& name) const {
        return read_file(*folder_ / name, 1 << 20).value_or("(unreadable)");
    }

private:
    std::unique_ptr<TemporaryDirectory> folder_;
};

std::string golden(const std::string& name) {
    return HOST_RUNNER_SOURCE_DIR "/tests/golden/wasi/" + name;
}

TEST_F(RustGuestWithFiles, works_with_them_through_the_standard_library) {
    const auto ending = run_in("rust_files", {}, Access::read_write);
    EXPECT_EQ(ending.end, CallEnd::returned);
    EXPECT_THAT(ending.err, IsEmpty());
    EXPECT_TRUE(matches_golden(golden("rust_files.txt"), ending.out));
    EXPECT_THAT(names(), ElementsAre("absolute", "fifo", "folder", "folder/inner",
                                     "folder/inner/copy", "folder/renamed", "given", "odd",
                                     "odd/plain", "odd/\xff", "out", "sought", "to_given"));
    EXPECT_EQ(content("folder/inner/copy"), "first\nsecond\n");
    EXPECT_EQ(content("sought"), "0123x");
}

TEST_F(RustGuestWithFiles, changes_nothing_where_it_may_only_read) {
    const auto ending = run_in("rust_files", {}, Access::read_only);
    EXPECT_EQ(ending.end, CallEnd::returned);
    EXPECT_TRUE(matches_golden(golden("rust_files_read_only.txt"), ending.out));
    EXPECT_THAT(names(), ElementsAre("absolute", "circle", "fifo", "given", "odd", "odd/plain",
                                     "odd/\xff", "out", "to_given"));
    EXPECT_EQ(content("given"), "given\n");
}

TEST_F(RustGuestWithFiles, gets_the_same_answers_to_each_call) {
    std::string seen;
    for (const auto* part : {"process", "descriptors", "opening", "paths", "waiting"}) {
        const auto ending = run_in("rust_calls", {part}, Access::read_write);
        EXPECT_EQ(ending.end, CallEnd::returned) << part << ": " << ending.err;
        seen += ending.out;
    }
    for (const auto* what :
         {"clock", "advice", "whence", "flags", "times", "lookup", "way", "rights",
          "clock_to_wait_for", "flag_to_wait_with", "kind_to_wait_for"})
        seen += run_in("rust_calls", {"unknown", what}, Access::read_write).out;
    EXPECT_TRUE(matches_golden(golden("rust_calls.txt"), seen));
}

TEST_F(RustGuestWithFiles, ends_at_a_bad_pointer) {
    EXPECT_EQ(run_in("rust_calls", {"outside"}, Access::read_write).end, CallEnd::trapped);
    EXPECT_EQ(run_in("rust_calls", {"unaligned"}, Access::read_write).end, CallEnd::trapped);
}

/// What the server answers to `text`.
std::string converse(const sockaddr_in& address, std::string_view text) {
    const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return "(nobody is there)";
    static_cast<void>(write_all(fd.get(), text));
    ::shutdown(fd.get(), SHUT_WR);
    return read_all(fd.get(), 1 << 16).value_or("(unreadable)");
}

TEST_F(RustGuest, serves_on_a_listener_it_was_given) {
    UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    ASSERT_EQ(::listen(listener.get(), 8), 0);
    ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    files.emplace_back(Listener{std::move(listener), nullptr});
    environment = {{"FD_NAMES", "stdin:stdout:stderr:80"}};
    // Both find the listener open already, and wait for the guest.
    auto first = std::async(std::launch::async, converse, address, "hello\nworld\n");
    auto second = std::async(std::launch::async, converse, address, "hello\nworld\n");
    const auto ending = run("rust_listener", {"2"});
    EXPECT_EQ(ending.out, "listening\na client with 2 lines\na client with 2 lines\n")
        << ending.err;
    EXPECT_EQ(first.get(), "HELLO\nWORLD\n2 lines\n");
    EXPECT_EQ(second.get(), "HELLO\nWORLD\n2 lines\n");
}

} // namespace
} // namespace host_runner::wasm::wasi
