// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/worker/request.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace host_runner::wasm::worker {

std::string encode_request(const Request& request) {
    const nlohmann::ordered_json json{{"artifact_fd", request.artifact_fd},
                                      {"report_fd", request.report_fd},
                                      {"tls_fd", request.tls_fd},
                                      {"arguments", request.arguments},
                                      {"has_files", request.has_files},
                                      {"ports", request.ports},
                                      {"memory_bytes", request.memory_bytes},
                                      {"timeout_ms", request.timeout.count()}};
    return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

Result<Request> decode_request(std::string_view text) {
    try {
        const auto json = nlohmann::json::parse(text);
        Request request;
        json.at("artifact_fd").get_to(request.artifact_fd);
        json.at("report_fd").get_to(request.report_fd);
        json.at("tls_fd").get_to(request.tls_fd);
        json.at("arguments").get_to(request.arguments);
        json.at("has_files").get_to(request.has_files);
        json.at("ports").get_to(request.ports);
        json.at("memory_bytes").get_to(request.memory_bytes);
        request.timeout =
            std::chrono::milliseconds(json.at("timeout_ms").get<std::chrono::milliseconds::rep>());
        return request;
    } catch (const nlohmann::json::exception& problem) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("The worker's request is not one: {}", problem.what()));
    }
}

} // namespace host_runner::wasm::worker
