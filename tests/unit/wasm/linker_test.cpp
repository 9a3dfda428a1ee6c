// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <optional>
#include <thread>

#include <gmock/gmock.h>

#include "engine_fixture.hpp"

namespace host_runner::wasm::tests {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// What the host functions below do for one call.
struct Notes {
    std::vector<std::string> texts;
    std::size_t memory_bytes = 0;
    std::vector<std::uint64_t> widened;
    std::optional<std::uint64_t> exit_code;
    std::optional<Trap> next_trap;
};

HostResult note(HostCall& call) noexcept {
    auto& notes = *static_cast<Notes*>(call.state);
    if (notes.next_trap)
        return tl::unexpected<Trap>(*notes.next_trap);
    notes.memory_bytes = call.memory.size();
    const auto pointer = call.arguments[0];
    const auto length = call.arguments[1];
    if (pointer + length > call.memory.size())
        return tl::unexpected<Trap>(Trap{TrapReason::out_of_bounds, "A note outside the memory"});
    const auto text = call.memory.subspan(pointer, length);
    notes.texts.emplace_back(reinterpret_cast<const char*>(text.data()), text.size());
    return static_cast<std::uint32_t>(length);
}

HostResult widen(HostCall& call) noexcept {
    auto& notes = *static_cast<Notes*>(call.state);
    notes.widened.assign(call.arguments.begin(), call.arguments.end());
    return 0xffffffff;
}

HostResult quit(HostCall& call) noexcept {
    static_cast<Notes*>(call.state)->exit_code = call.arguments[0];
    return tl::unexpected<Trap>(Trap{TrapReason::exit, ""});
}

constexpr std::array two_i32{ValueType::i32, ValueType::i32};
constexpr std::array i32_i64{ValueType::i32, ValueType::i64};
const std::array<HostFunction, 3> functions{
    {{"env", "note", two_i32, true, note},
     {"env", "widen", i32_i64, true, widen},
     {"env", "quit", std::span(two_i32).first(1), false, quit}}};

class Linking : public testing::Test {
protected:
    Outcome run(const std::string& module, std::string_view function,
                std::vector<std::uint64_t> arguments = {}) {
        auto request = request_of(function, arguments);
        request.state = &notes;
        const auto outcome = engine.call(make_program(engine, module, functions), request);
        EXPECT_TRUE(outcome) << outcome.error().describe();
        return outcome.value_or(Outcome{});
    }
    Engine engine = make_engine();
    Notes notes;
};

TEST_F(Linking, gives_host_functions_the_state_and_the_memory) {
    const auto outcome = run("hosted", "note", {16, 5});
    EXPECT_THAT(outcome.results, ElementsAre(5));
    EXPECT_THAT(notes.texts, ElementsAre("hello"));
    EXPECT_EQ(notes.memory_bytes, 65536U);
}

TEST_F(Linking, gives_the_memory_to_a_start_function_too) {
    EXPECT_EQ(run("start_calls", "").end, CallEnd::returned);
    EXPECT_THAT(notes.texts, ElementsAre("early"));
}

TEST_F(Linking, passes_integers_unchanged) {
    const auto outcome = run("hosted", "widen", {0xfffffffe, 0x8000000000000001});
    EXPECT_THAT(notes.widened, ElementsAre(0xfffffffe, 0x8000000000000001));
    EXPECT_THAT(outcome.results, ElementsAre(0xffffffff));
}

TEST_F(Linking, ends_the_guest_that_exits) {
    const auto outcome = run("hosted", "");
    EXPECT_EQ(outcome.end, CallEnd::exited);
    EXPECT_EQ(notes.exit_code, 42U);
    EXPECT_TRUE(outcome.backtrace.empty());
}

TEST_F(Linking, reports_what_a_host_function_ended_the_guest_for) {
    const auto ended_by = [&](TrapReason reason) {
        notes.next_trap = Trap{reason, "Because"};
        const auto outcome = run("hosted", "note", {16, 5});
        EXPECT_EQ(outcome.message, "Because");
        return outcome.end;
    };
    EXPECT_EQ(ended_by(TrapReason::interrupted), CallEnd::timed_out);
    EXPECT_EQ(ended_by(TrapReason::out_of_bounds), CallEnd::trapped);
    EXPECT_EQ(ended_by(TrapReason::limit), CallEnd::limit);
    EXPECT_EQ(ended_by(TrapReason::host_failure), CallEnd::host_failed);
}

TEST_F(Linking, shows_where_the_guest_passed_a_bad_pointer) {
    const auto outcome = run("hosted", "note", {65536, 1});
    EXPECT_EQ(outcome.end, CallEnd::trapped);
    EXPECT_EQ(outcome.message, "A note outside the memory");
    EXPECT_FALSE(outcome.backtrace.empty());
}

TEST_F(Linking, keeps_the_states_of_concurrent_calls_apart) {
    const auto program = make_program(engine, "hosted", functions);
    std::vector<std::thread> threads;
    for (std::uint64_t length = 1; length <= 4; ++length)
        threads.emplace_back([&, length] {
            for (int i = 0; i < 50; ++i) {
                Notes own;
                const std::vector<std::uint64_t> arguments{16, length};
                auto request = request_of("note", arguments);
                request.state = &own;
                const auto outcome = engine.call(program, request);
                ASSERT_TRUE(outcome) << outcome.error().describe();
                EXPECT_THAT(own.texts, ElementsAre(std::string("hello").substr(0, length)));
            }
        });
    for (auto& thread : threads)
        thread.join();
}

TEST_F(Linking, names_every_import_that_is_missing) {
    const auto program = try_program(engine, "missing_imports", functions);
    ASSERT_FALSE(program);
    EXPECT_EQ(program.error().code, ErrorCode::unsupported);
    EXPECT_THAT(program.error().message,
                HasSubstr("env.teleport, wasi_snapshot_preview1.sock_open"));
    EXPECT_EQ(program.error().message.find("env.note"), std::string::npos) << "that one is there";
}

TEST_F(Linking, refuses_an_import_of_another_type) {
    const auto program = try_program(engine, "wrong_import", functions);
    ASSERT_FALSE(program);
    EXPECT_EQ(program.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(program.error().message, HasSubstr("note"));
}

TEST_F(Linking, refuses_a_command_that_is_a_reactor_too) {
    EXPECT_EQ(try_program(engine, "both_entries").error().code, ErrorCode::invalid_argument);
}

TEST_F(Linking, refuses_functions_that_cannot_be_defined) {
    const std::array<HostFunction, 2> twice{{functions[0], functions[0]}};
    EXPECT_THAT(engine.make_linker(twice).error().message, HasSubstr("twice"));
    const std::array<HostFunction, 1> without{{{"env", "note", two_i32, true, nullptr}}};
    EXPECT_EQ(engine.make_linker(without).error().code, ErrorCode::invalid_argument);
}

} // namespace
} // namespace host_runner::wasm::tests
