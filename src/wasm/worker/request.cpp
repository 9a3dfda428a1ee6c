// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/worker/request.hpp"

#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace host_runner::wasm::worker {

std::string encode_request(const Request& request) {
    auto outgoing = nlohmann::ordered_json::array();
    for (const auto& one : request.outgoing)
        outgoing.push_back({{"name", one.name}, {"address", one.address}});
    auto ports = nlohmann::ordered_json::array();
    for (const auto& port : request.ports)
        ports.push_back({{"number", port.number},
                         {"address", port.address},
                         {"listen_port", port.listen_port}});
    const nlohmann::ordered_json json{{"world", to_string(request.world)},
                                      {"is_component", request.is_component},
                                      {"artifact_fd", request.artifact_fd},
                                      {"report_fd", request.report_fd},
                                      {"tls_fd", request.tls_fd},
                                      {"channel_fd", request.channel_fd},
                                      {"counters_fd", request.counters_fd},
                                      {"arguments", request.arguments},
                                      {"has_files", request.has_files},
                                      {"ports", std::move(ports)},
                                      {"shares_ports", request.shares_ports},
                                      {"memory_bytes", request.memory_bytes},
                                      {"timeout_ms", request.timeout.count()},
                                      {"calls", request.calls.calls},
                                      {"output_bytes", request.calls.output_bytes},
                                      {"grace_ms", request.grace.count()},
                                      {"outgoing", std::move(outgoing)}};
    return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

Result<Request> decode_request(std::string_view text) {
    try {
        const auto json = nlohmann::json::parse(text);
        Request request;
        HR_TRY(request.world, protocol::parse_world(json.at("world").get<std::string>()));
        json.at("is_component").get_to(request.is_component);
        json.at("artifact_fd").get_to(request.artifact_fd);
        json.at("report_fd").get_to(request.report_fd);
        json.at("tls_fd").get_to(request.tls_fd);
        json.at("channel_fd").get_to(request.channel_fd);
        json.at("counters_fd").get_to(request.counters_fd);
        json.at("arguments").get_to(request.arguments);
        json.at("has_files").get_to(request.has_files);
        for (const auto& port : json.at("ports"))
            request.ports.push_back({port.at("number").get<std::uint16_t>(),
                                     port.at("address").get<std::string>(),
                                     port.at("listen_port").get<std::uint16_t>()});
        json.at("shares_ports").get_to(request.shares_ports);
        json.at("memory_bytes").get_to(request.memory_bytes);
        json.at("calls").get_to(request.calls.calls);
        json.at("output_bytes").get_to(request.calls.output_bytes);
        using Count = std::chrono::milliseconds::rep;
        request.timeout = std::chrono::milliseconds(json.at("timeout_ms").get<Count>());
        request.grace = std::chrono::milliseconds(json.at("grace_ms").get<Count>());
        for (const auto& one : json.at("outgoing"))
            request.outgoing.push_back(
                {one.at("name").get<std::string>(), one.at("address").get<std::string>()});
        return request;
    } catch (const nlohmann::json::exception& problem) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("The worker's request is not one: {}", problem.what()));
    }
}

} // namespace host_runner::wasm::worker
