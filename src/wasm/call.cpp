// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/call.hpp"

#include <algorithm>

#include <poll.h>

#include <fmt/format.h>

#include "impl.hpp"

namespace host_runner::wasm {

namespace {

using Clock = std::chrono::steady_clock;

/// Runs in the guest's thread at each tick.
wasmtime_error_t* on_tick(wasmtime_context_t* /*context*/, void* data, std::uint64_t* ticks_to_next,
                          wasmtime_update_deadline_kind_t* /*kind*/) noexcept {
    auto& state = *static_cast<CallState*>(data);
    state.overdue = overdue(state.deadline);
    if (state.overdue)
        return wasmtime_error_new("ended by its deadline");
    *ticks_to_next = 1;
    return nullptr;
}

std::string_view trap_text(wasmtime_trap_code_t code) noexcept {
    switch (code) {
    case WASMTIME_TRAP_CODE_STACK_OVERFLOW:
        return "Calls are nested too deeply";
    case WASMTIME_TRAP_CODE_MEMORY_OUT_OF_BOUNDS:
        return "Access outside the memory";
    case WASMTIME_TRAP_CODE_HEAP_MISALIGNED:
        return "Misaligned atomic access";
    case WASMTIME_TRAP_CODE_TABLE_OUT_OF_BOUNDS:
        return "Access outside a table";
    case WASMTIME_TRAP_CODE_INDIRECT_CALL_TO_NULL:
        return "Indirect call to no function";
    case WASMTIME_TRAP_CODE_BAD_SIGNATURE:
        return "Indirect call to a function of another type";
    case WASMTIME_TRAP_CODE_INTEGER_OVERFLOW:
        return "Integer overflow";
    case WASMTIME_TRAP_CODE_INTEGER_DIVISION_BY_ZERO:
        return "Integer division by zero";
    case WASMTIME_TRAP_CODE_BAD_CONVERSION_TO_INTEGER:
        return "Conversion of a float that is no integer";
    case WASMTIME_TRAP_CODE_UNREACHABLE_CODE_REACHED:
        return "Unreachable code reached (how most languages abort)";
    case WASMTIME_TRAP_CODE_INTERRUPT:
        return "Interrupted";
    case WASMTIME_TRAP_CODE_ATOMIC_WAIT_NON_SHARED_MEMORY:
        return "Atomic wait on a memory that is not shared";
    case WASMTIME_TRAP_CODE_NULL_REFERENCE:
        return "Use of a null reference";
    case WASMTIME_TRAP_CODE_ARRAY_OUT_OF_BOUNDS:
        return "Access outside an array";
    case WASMTIME_TRAP_CODE_ALLOCATION_TOO_LARGE:
        return "Allocation too large";
    case WASMTIME_TRAP_CODE_CAST_FAILURE:
        return "Cast to a type that the reference does not have";
    case WASMTIME_TRAP_CODE_UNCAUGHT_EXCEPTION:
        return "Uncaught exception";
    default:
        return {};
    }
}

std::vector<Frame> frames_of(wasm_frame_vec_t& trace) {
    // Enough to find the place; a recursion has thousands.
    constexpr std::size_t max_frames = 32;
    std::vector<Frame> frames;
    for (std::size_t i = 0; i < std::min(trace.size, max_frames); ++i) {
        const wasm_frame_t* frame = trace.data[i]; // NOLINT: the C API's array
        const wasm_name_t* name = wasmtime_frame_func_name(frame);
        frames.push_back(
            {wasm_frame_func_index(frame), wasm_frame_module_offset(frame),
             name == nullptr ? std::string() : plain_text({name->data, name->size}, 120)});
    }
    wasm_frame_vec_delete(&trace);
    return frames;
}

/// What the engine gave back from one instantiation or call.
struct Ending {
    ErrorHandle error;
    TrapHandle trap;
    [[nodiscard]] bool good() const noexcept {
        return !error && !trap;
    }
    [[nodiscard]] std::vector<Frame> backtrace() const {
        wasm_frame_vec_t trace{0, nullptr};
        if (trap)
            wasm_trap_trace(trap.get(), &trace);
        else
            wasmtime_error_wasm_trace(error.get(), &trace);
        return frames_of(trace);
    }
};

std::string overdue_text(CallEnd end) {
    return end == CallEnd::cancelled ? "The call was cancelled" : "The call's time is over";
}

Outcome ended(CallEnd end, std::string message) {
    Outcome outcome;
    outcome.end = end;
    outcome.message = std::move(message);
    return outcome;
}

Outcome ended_by_host(const CallState& state) {
    const auto& trap = *state.host_trap;
    switch (trap.reason) {
    case TrapReason::exit:
        return ended(CallEnd::exited, "");
    case TrapReason::interrupted: {
        const auto end = overdue(state.deadline).value_or(CallEnd::timed_out);
        return ended(end, trap.message.empty() ? overdue_text(end) : trap.message);
    }
    case TrapReason::out_of_bounds:
        return ended(CallEnd::trapped, trap.message);
    case TrapReason::limit:
        return ended(CallEnd::limit, trap.message);
    case TrapReason::host_failure:
        break;
    }
    return ended(CallEnd::host_failed, trap.message);
}

/// Why the guest did not return. What we know for certain comes first; the engine's text is the
/// last resort.
Outcome explain(const CallState& state, const Ending& ending) {
    if (state.host_trap)
        return ended_by_host(state);
    if (state.overdue)
        return ended(*state.overdue, overdue_text(*state.overdue));
    const auto& limits = state.limits;
    wasmtime_trap_code_t code = 0;
    const bool has_code = ending.trap && wasmtime_trap_code(ending.trap.get(), &code);
    // A guest that was refused memory gives up by `unreachable`, or runs over a null pointer; any
    // other trap has its own reason.
    const bool gave_up = !has_code || code == WASMTIME_TRAP_CODE_UNREACHABLE_CODE_REACHED ||
                         code == WASMTIME_TRAP_CODE_MEMORY_OUT_OF_BOUNDS ||
                         code == WASMTIME_TRAP_CODE_ALLOCATION_TOO_LARGE;
    if (limits.memory_refused_bytes > 0 && gave_up)
        return ended(CallEnd::out_of_memory,
                     fmt::format("The guest wanted {} bytes of memory; its limit is {}",
                                 limits.memory_refused_bytes, limits.memory_limit_bytes));
    if (limits.table_refused_elements > 0 &&
        (gave_up || code == WASMTIME_TRAP_CODE_TABLE_OUT_OF_BOUNDS))
        return ended(CallEnd::limit,
                     fmt::format("The guest wanted a table of {} elements; its limit is {}",
                                 limits.table_refused_elements, limits.table_limit_elements));
    if (has_code && code == WASMTIME_TRAP_CODE_STACK_OVERFLOW)
        return ended(CallEnd::limit, std::string(trap_text(code)));
    if (has_code) {
        const auto text = trap_text(code);
        return ended(CallEnd::trapped, text.empty() ? fmt::format("WebAssembly trap {}", int{code})
                                                    : std::string(text));
    }
    return ended(CallEnd::trapped, ending.error ? message_of(*ending.error) : "Uncaught exception");
}

wasmtime_val_raw_t raw_value(NumberType type, std::uint64_t bits) noexcept {
    wasmtime_val_raw_t value{};
    if (type == NumberType::i32 || type == NumberType::f32)
        value.i32 =
            static_cast<std::int32_t>(bits); // NOLINT: the C API's union; an f32 is its bits
    else
        value.i64 = static_cast<std::int64_t>(bits); // NOLINT
    return value;
}

std::uint64_t bits_of(NumberType type, const wasmtime_val_raw_t& value) noexcept {
    if (type == NumberType::i32 || type == NumberType::f32)
        return static_cast<std::uint32_t>(value.i32); // NOLINT: the C API's union
    return static_cast<std::uint64_t>(value.i64);     // NOLINT
}

/// One instance in its store, from nothing to the answer.
class Instance {
public:
    Instance(wasm_engine_t& engine, CallState& state)
        : state_(state), store_(wasmtime_store_new(&engine, &state, nullptr)) {
        hr_store_set_limits(store_.get(), &state.limits);
        wasmtime_store_epoch_deadline_callback(store_.get(), on_tick, &state, nullptr);
        context_ = wasmtime_store_context(store_.get());
        wasmtime_context_set_epoch_deadline(context_, 1);
    }

    [[nodiscard]] Ending instantiate(const wasmtime_instance_pre_t& program) {
        wasm_trap_t* trap = nullptr;
        ErrorHandle error(wasmtime_instance_pre_instantiate(&program, context_, &instance_, &trap));
        Ending ending{std::move(error), TrapHandle(trap)};
        if (ending.good())
            find_memory();
        return ending;
    }

    [[nodiscard]] Ending call(std::string_view name, const FunctionShape& shape,
                              std::span<const std::uint64_t> arguments,
                              std::vector<std::uint64_t>& results) {
        wasmtime_extern_t found;
        HR_ASSERT(
            wasmtime_instance_export_get(context_, &instance_, name.data(), name.size(), &found) &&
            found.kind == WASMTIME_EXTERN_FUNC);
        std::vector<wasmtime_val_raw_t> values(
            std::max(shape.parameters.size(), shape.results.size()));
        for (std::size_t i = 0; i < shape.parameters.size(); ++i)
            values[i] = raw_value(shape.parameters[i], arguments[i]);
        wasm_trap_t* trap = nullptr;
        ErrorHandle error(wasmtime_func_call_unchecked(context_, &found.of.func, values.data(),
                                                       values.size(), &trap)); // NOLINT: union
        Ending ending{std::move(error), TrapHandle(trap)};
        if (ending.good())
            for (std::size_t i = 0; i < shape.results.size(); ++i)
                results.push_back(bits_of(shape.results[i], values[i]));
        return ending;
    }

private:
    void find_memory() {
        constexpr std::string_view name = "memory";
        wasmtime_extern_t found;
        if (!wasmtime_instance_export_get(context_, &instance_, name.data(), name.size(), &found))
            return;
        if (found.kind == WASMTIME_EXTERN_MEMORY)
            state_.memory = found.of.memory; // NOLINT: the C API's union
        else
            wasmtime_extern_delete(&found);
    }

    CallState& state_;
    StoreHandle store_;
    wasmtime_context_t* context_ = nullptr;
    wasmtime_instance_t instance_{};
};

/// A place of the pool, given back when everything made in it is gone.
class TakenPlace {
public:
    explicit TakenPlace(Places& places) noexcept : places_(places) {}
    TakenPlace(const TakenPlace&) = delete;
    TakenPlace& operator=(const TakenPlace&) = delete;
    ~TakenPlace() {
        places_.give_back();
    }

private:
    Places& places_;
};

/// @errors resource_exhausted: what the pool has too little of, although it had a place
Result<Outcome> run(Instance& instance, const Program::Impl& program, std::string_view name,
                    const FunctionShape& shape, std::span<const std::uint64_t> arguments,
                    const CallState& state) {
    const auto finish = [&](const Ending& ending) {
        auto outcome = explain(state, ending);
        if (outcome.end != CallEnd::exited)
            outcome.backtrace = ending.backtrace();
        return outcome;
    };
    const auto started = instance.instantiate(*program.program);
    if (!started.good()) {
        const bool guests_doing = started.trap || state.host_trap || state.overdue ||
                                  state.limits.memory_refused_bytes > 0 ||
                                  state.limits.table_refused_elements > 0;
        if (!guests_doing)
            return fail(ErrorCode::resource_exhausted,
                        fmt::format("Cannot make an instance: {}", message_of(*started.error)));
        return finish(started);
    }
    Outcome outcome;
    if (program.entry.is_reactor && name != "_initialize") {
        std::vector<std::uint64_t> none;
        const auto initialized =
            instance.call("_initialize", program.module->functions.at("_initialize"), {}, none);
        if (!initialized.good())
            return finish(initialized);
    }
    const auto called = instance.call(name, shape, arguments, outcome.results);
    return called.good() ? outcome : finish(called);
}

} // namespace

std::string_view to_string(CallEnd end) noexcept {
    switch (end) {
    case CallEnd::returned:
        return "returned";
    case CallEnd::exited:
        return "exited";
    case CallEnd::trapped:
        return "trapped";
    case CallEnd::timed_out:
        return "timed_out";
    case CallEnd::cancelled:
        return "cancelled";
    case CallEnd::out_of_memory:
        return "out_of_memory";
    case CallEnd::limit:
        return "limit";
    case CallEnd::host_failed:
        return "host_failed";
    }
    return "unknown";
}

std::optional<CallEnd> overdue(const CallDeadline& deadline) noexcept {
    if (deadline.cancel_fd >= 0) {
        pollfd cancelled{deadline.cancel_fd, POLLIN, 0};
        if (::poll(&cancelled, 1, 0) > 0)
            return CallEnd::cancelled;
    }
    if (deadline.at && Clock::now() >= *deadline.at)
        return CallEnd::timed_out;
    return std::nullopt;
}

Result<Outcome> Engine::call(const Program& program, const CallRequest& request) const {
    const auto& bound = *program.impl_;
    const auto& functions = bound.module->functions;
    const std::string_view name =
        request.function.empty() ? std::string_view(bound.entry.function) : request.function;
    const auto found = functions.find(name);
    if (found == functions.end())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("The module has no function {}",
                                name.empty() ? "\"\"" : plain_text(name, 100)),
                    bound.entry.is_reactor ? "it is a reactor: name one of its functions" : "");
    const auto& shape = found->second;
    if (!shape.only_numbers)
        return fail(
            ErrorCode::unsupported,
            fmt::format("Function {} takes or gives other values than numbers", plain_text(name)));
    if (shape.parameters.size() != request.arguments.size())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("Function {} takes {} arguments, not {}", plain_text(name),
                                shape.parameters.size(), request.arguments.size()));
    CallState state;
    state.host_state = request.state;
    state.deadline = request.deadline;
    state.limits.memory_limit_bytes =
        std::min(request.limits.memory_bytes, impl_->settings.max_memory_bytes);
    state.limits.table_limit_elements =
        std::min<std::uint64_t>(request.limits.table_elements, impl_->settings.table_elements);
    if (const auto end = overdue(state.deadline))
        return ended(*end, overdue_text(*end));

    auto until = Clock::now() + request.wait_for_place;
    if (state.deadline.at)
        until = std::min(until, *state.deadline.at);
    HR_TRY(const auto taken, impl_->places.take(until, state.deadline.cancel_fd));
    switch (taken) {
    case Places::Taken::cancelled:
        return ended(CallEnd::cancelled, overdue_text(CallEnd::cancelled));
    case Places::Taken::timed_out:
        return fail(ErrorCode::resource_exhausted,
                    fmt::format("All {} places for instances stayed taken", impl_->settings.places),
                    "call less at a time, or give the worker more places");
    case Places::Taken::taken:
        break;
    }
    const TakenPlace place(impl_->places);
    const Ticker::Running ticking(impl_->ticker);
    Instance instance(*impl_->engine, state);
    auto outcome = run(instance, bound, name, shape, request.arguments, state);
    if (outcome)
        outcome->memory_peak_bytes = state.limits.memory_peak_bytes;
    return outcome;
}

} // namespace host_runner::wasm
