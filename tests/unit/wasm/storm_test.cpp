// SPDX-License-Identifier: Apache-2.0
#include <thread>

#include <unistd.h>

#include <gmock/gmock.h>

#include "engine_fixture.hpp"

namespace host_runner::wasm::tests {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;

std::size_t resident_bytes() {
    const auto text = read_file("/proc/self/statm", 4096).value();
    return std::stoul(text.substr(text.find(' '))) *
           static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

std::size_t open_descriptors() {
    return list_directory("/proc/self/fd")->size();
}

struct Deed {
    std::string_view function;
    std::vector<std::uint64_t> arguments;
    CallEnd end;
};

/// One round: hostile guests of every kind beside guests whose results are known, in one engine
/// that has fewer places than there are callers.
void storm(const Engine& engine, const Program& deeds, int calls) {
    const std::vector<Deed> hostile{
        {"crash", {}, CallEnd::trapped},      {"outside", {}, CallEnd::trapped},
        {"divide", {1, 0}, CallEnd::trapped}, {"recurse", {1}, CallEnd::limit},
        {"grow_table", {}, CallEnd::limit},   {"hoard", {}, CallEnd::out_of_memory},
        {"spin", {}, CallEnd::timed_out}};
    std::vector<std::thread> threads;
    for (std::size_t first = 0; first < hostile.size(); ++first)
        threads.emplace_back([&, first] {
            for (int i = 0; i < calls; ++i) {
                const auto& deed =
                    hostile.at((first + static_cast<std::size_t>(i)) % hostile.size());
                auto request = request_of(deed.function, deed.arguments);
                request.limits.memory_bytes = 4 << 20;
                request.wait_for_place = std::chrono::seconds(60);
                if (deed.end == CallEnd::timed_out)
                    request.deadline.at = std::chrono::steady_clock::now() + milliseconds(20);
                const auto outcome = engine.call(deeds, request);
                if (deed.end == CallEnd::timed_out && !outcome)
                    continue; // it waited its time away
                ASSERT_TRUE(outcome) << outcome.error().describe();
                EXPECT_EQ(to_string(outcome->end), to_string(deed.end))
                    << deed.function << ": " << outcome->message;
            }
        });
    for (int worker = 0; worker < 2; ++worker)
        threads.emplace_back([&] {
            for (int i = 0; i < calls * 5; ++i) {
                const std::vector<std::uint64_t> last{10000};
                auto request = request_of("sum_to", last);
                request.wait_for_place = std::chrono::seconds(60);
                const auto outcome = engine.call(deeds, request);
                ASSERT_TRUE(outcome) << outcome.error().describe();
                ASSERT_THAT(outcome->results, ElementsAre(10000ULL * 10001 / 2));
            }
        });
    for (auto& thread : threads)
        thread.join();
}

TEST(Storm, leaves_well_behaved_guests_alone_and_nothing_behind) {
    EngineSettings settings;
    settings.places = 4;
    const auto engine = make_engine(settings);
    const auto deeds = make_program(engine, "deeds");
    storm(engine, deeds, 14); // what threads and allocators keep, they keep after the first round
    const auto resident = resident_bytes();
    const auto descriptors = open_descriptors();
    storm(engine, deeds, 28);
    EXPECT_EQ(open_descriptors(), descriptors);
    if (!sanitized) {
        EXPECT_LT(resident_bytes(), resident + (8 << 20)) << "it was " << resident;
    }
}

} // namespace
} // namespace host_runner::wasm::tests
