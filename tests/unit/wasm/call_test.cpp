// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/call.hpp"

#include <bit>
#include <thread>

#include <sys/eventfd.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "engine_fixture.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::wasm::tests {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;

class Call : public testing::Test {
protected:
    Outcome run(const CallRequest& request) {
        auto outcome = engine.call(deeds, request);
        EXPECT_TRUE(outcome) << outcome.error().describe();
        return std::move(outcome).value_or(Outcome{});
    }
    Outcome run(std::string_view function, std::vector<std::uint64_t> arguments = {}) {
        return run(request_of(function, arguments));
    }

    Engine engine = make_engine();
    Program deeds = make_program(engine, "deeds");
};

TEST_F(Call, gives_the_results) {
    EXPECT_THAT(run("add", {2, 40}).results, ElementsAre(42));
    EXPECT_THAT(run("add_long", {1ULL << 40, 2}).results, ElementsAre((1ULL << 40) + 2));
    EXPECT_THAT(run("swap", {7, 1ULL << 33}).results, ElementsAre(1ULL << 33, 7));
}

TEST_F(Call, gives_floats_as_their_bits) {
    EXPECT_THAT(run("half", {std::bit_cast<std::uint64_t>(5.0)}).results,
                ElementsAre(std::bit_cast<std::uint64_t>(2.5)));
    EXPECT_THAT(run("half_single", {std::bit_cast<std::uint32_t>(5.0F)}).results,
                ElementsAre(std::bit_cast<std::uint32_t>(2.5F)));
}

TEST_F(Call, zero_extends_a_negative_i32) {
    EXPECT_THAT(run("add", {0, 0xffffffff}).results, ElementsAre(0xffffffff));
}

TEST_F(Call, gets_a_fresh_instance_each_time) {
    EXPECT_THAT(run("remember", {99}).results, ElementsAre(0));
    EXPECT_THAT(run("remember", {1}).results, ElementsAre(0));
}

TEST_F(Call, traps_with_a_backtrace_of_names) {
    const auto outcome = run("crash");
    EXPECT_EQ(outcome.end, CallEnd::trapped);
    EXPECT_THAT(outcome.message, HasSubstr("nreachable"));
    ASSERT_GE(outcome.backtrace.size(), 3U);
    EXPECT_EQ(outcome.backtrace[0].function, "deepest");
    EXPECT_EQ(outcome.backtrace[1].function, "deeper");
    EXPECT_GT(outcome.backtrace[0].module_offset, 0U);
}

TEST_F(Call, names_the_kind_of_trap) {
    EXPECT_THAT(run("divide", {1, 0}).message, HasSubstr("division by zero"));
    EXPECT_THAT(run("divide", {0x80000000, 0xffffffff}).message, HasSubstr("overflow"));
    EXPECT_THAT(run("outside").message, HasSubstr("outside the memory"));
    EXPECT_THAT(run("call_nothing").message, HasSubstr("no function"));
    EXPECT_EQ(run("outside").end, CallEnd::trapped);
}

TEST_F(Call, ends_a_bottomless_recursion_as_a_limit) {
    const auto outcome = run("recurse", {1});
    EXPECT_EQ(outcome.end, CallEnd::limit);
    EXPECT_THAT(outcome.message, HasSubstr("nested too deeply"));
    EXPECT_LE(outcome.backtrace.size(), 32U);
}

TEST_F(Call, ends_an_endless_loop_at_its_deadline) {
    const auto outcome = run(within(milliseconds(200), request_of("spin")));
    EXPECT_EQ(outcome.end, CallEnd::timed_out);
    EXPECT_FALSE(outcome.backtrace.empty()) << "where it looped is worth knowing";
}

TEST_F(Call, does_not_begin_after_its_deadline) {
    auto request = request_of("spin");
    request.deadline.at = std::chrono::steady_clock::now() - milliseconds(1);
    EXPECT_EQ(run(request).end, CallEnd::timed_out);
}

TEST_F(Call, ends_when_it_is_cancelled) {
    const UniqueFd cancel(::eventfd(0, EFD_CLOEXEC));
    auto request = request_of("spin");
    request.deadline.cancel_fd = cancel.get();
    std::thread canceller([&] {
        const std::uint64_t one = 1;
        EXPECT_EQ(::write(cancel.get(), &one, sizeof one), 8);
    });
    EXPECT_EQ(run(request).end, CallEnd::cancelled);
    canceller.join();
}

TEST_F(Call, tells_memory_that_ran_out_from_other_traps) {
    auto request = request_of("hoard");
    request.limits.memory_bytes = 8 << 20;
    const auto outcome = run(request);
    EXPECT_EQ(outcome.end, CallEnd::out_of_memory);
    EXPECT_THAT(outcome.message, HasSubstr("8388608"));
    EXPECT_GT(outcome.memory_peak_bytes, 7U << 20);
    EXPECT_LE(outcome.memory_peak_bytes, 8U << 20);
}

TEST_F(Call, lets_a_guest_live_on_that_was_refused_memory) {
    const std::vector<std::uint64_t> arguments{60000};
    const auto outcome = run(request_of("grow", arguments));
    EXPECT_EQ(outcome.end, CallEnd::returned);
    EXPECT_THAT(outcome.results, ElementsAre(0xffffffff));
    EXPECT_EQ(run("refused_then_divide").end, CallEnd::trapped) << "it failed for another reason";
}

TEST_F(Call, never_gives_more_memory_than_the_engine_has_for_one) {
    auto request = request_of("hoard");
    request.limits.memory_bytes = ~0ULL;
    const auto outcome = run(request);
    EXPECT_EQ(outcome.end, CallEnd::out_of_memory);
    EXPECT_LE(outcome.memory_peak_bytes, EngineSettings{}.max_memory_bytes);
}

TEST_F(Call, ends_a_table_that_grows_too_large_as_a_limit) {
    auto request = request_of("grow_table");
    request.limits.table_elements = 10000;
    const auto outcome = run(request);
    EXPECT_EQ(outcome.end, CallEnd::limit);
    EXPECT_THAT(outcome.message, HasSubstr("10000"));
}

TEST_F(Call, reports_memory_that_the_instance_needs_from_the_start) {
    const auto program = make_program(engine, "some_memory");
    CallRequest request;
    request.limits.memory_bytes = 16 << 20;
    const auto outcome = engine.call(program, request);
    ASSERT_TRUE(outcome) << outcome.error().describe();
    EXPECT_EQ(outcome->end, CallEnd::out_of_memory);
    request.limits.memory_bytes = 64 << 20;
    EXPECT_EQ(engine.call(program, request)->end, CallEnd::returned);
}

TEST_F(Call, holds_the_start_function_to_the_deadline) {
    const auto program = make_program(engine, "start_spins");
    const auto outcome = engine.call(program, within(milliseconds(30), {}));
    ASSERT_TRUE(outcome) << outcome.error().describe();
    EXPECT_EQ(outcome->end, CallEnd::timed_out);
}

TEST_F(Call, refuses_what_does_not_fit_the_function) {
    EXPECT_EQ(engine.call(deeds, request_of("absent")).error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(engine.call(deeds, request_of("memory")).error().code, ErrorCode::invalid_argument);
    const auto few = engine.call(deeds, request_of("add"));
    EXPECT_THAT(few.error().message, HasSubstr("takes 2 arguments, not 0"));
}

TEST_F(Call, survives_functions_of_other_types_than_numbers) {
    const auto program = make_program(engine, "vectors");
    EXPECT_EQ(engine.call(program, request_of("vector")).error().code, ErrorCode::unsupported);
    EXPECT_EQ(engine.call(program, request_of("reference")).error().code, ErrorCode::unsupported);
}

TEST_F(Call, prefers_the_function_without_a_name) {
    const auto outcome = engine.call(make_program(engine, "unnamed_entry"), {});
    ASSERT_TRUE(outcome) << outcome.error().describe();
    EXPECT_THAT(outcome->results, ElementsAre(5));
}

TEST_F(Call, initializes_a_reactor_once_in_each_instance) {
    const auto program = make_program(engine, "reactor");
    EXPECT_THAT(engine.call(program, request_of("value"))->results, ElementsAre(7));
    EXPECT_THAT(engine.call(program, request_of("value"))->results, ElementsAre(7));
    const auto unnamed = engine.call(program, {});
    ASSERT_FALSE(unnamed);
    EXPECT_THAT(unnamed.error().hint, HasSubstr("reactor"));
}

class FullPool : public testing::Test {
protected:
    static EngineSettings one_place() {
        EngineSettings settings;
        settings.places = 1;
        return settings;
    }
    Engine engine = make_engine(one_place());
    Program deeds = make_program(engine, "deeds");
    UniqueFd cancel{::eventfd(0, EFD_CLOEXEC)};

    /// Takes the one place until cancelled.
    std::thread occupy() {
        std::thread occupant([this] {
            auto request = request_of("spin");
            request.deadline.cancel_fd = cancel.get();
            request.wait_for_place = std::chrono::seconds(60);
            EXPECT_EQ(engine.call(deeds, request)->end, CallEnd::cancelled);
        });
        // Full once a call that does not wait is refused.
        // A short one, so that the occupant's turn comes soon.
        const std::vector<std::uint64_t> arguments{1, 2};
        auto probe = request_of("add", arguments);
        probe.wait_for_place = milliseconds(0);
        while (engine.call(deeds, probe))
            std::this_thread::yield();
        return occupant;
    }
    void release() const {
        const std::uint64_t one = 1;
        EXPECT_EQ(::write(cancel.get(), &one, sizeof one), 8);
    }
};

TEST_F(FullPool, is_an_error_after_the_wait) {
    auto occupant = occupy();
    auto request = request_of("spin");
    request.wait_for_place = milliseconds(20);
    const auto refused = engine.call(deeds, request);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::resource_exhausted);
    EXPECT_THAT(refused.error().message, HasSubstr("All 1 places"));
    release();
    occupant.join();
}

TEST_F(FullPool, is_waited_for) {
    auto occupant = occupy();
    std::thread waiter([this] {
        const std::vector<std::uint64_t> arguments{1, 2};
        auto request = request_of("add", arguments);
        request.wait_for_place = std::chrono::seconds(30);
        const auto outcome = engine.call(deeds, request);
        ASSERT_TRUE(outcome) << outcome.error().describe();
        EXPECT_THAT(outcome->results, ElementsAre(3));
    });
    release();
    occupant.join();
    waiter.join();
}

TEST_F(FullPool, does_not_hold_a_cancelled_call) {
    auto occupant = occupy();
    const UniqueFd other(::eventfd(0, EFD_CLOEXEC));
    std::thread waiter([&] {
        auto request = request_of("spin");
        request.wait_for_place = std::chrono::seconds(30);
        request.deadline.cancel_fd = other.get();
        EXPECT_EQ(engine.call(deeds, request)->end, CallEnd::cancelled);
    });
    const std::uint64_t one = 1;
    EXPECT_EQ(::write(other.get(), &one, sizeof one), 8);
    waiter.join();
    release();
    occupant.join();
}

} // namespace
} // namespace host_runner::wasm::tests
