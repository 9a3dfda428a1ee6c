// SPDX-License-Identifier: Apache-2.0
#include "host_runner/cli/formatter.hpp"
#include "host_runner/crypto/digest.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

VerbResult run_verb_compose_check(const Context& context) {
    HR_TRY(const auto compose, spec::load_compose(context.argument(0)));
    std::map<std::string, std::string> environment;
    if (const auto path = context.settings.text("env-file"); !path.empty()) {
        HR_TRY(environment, spec::load_env_file(path));
    }
    ComposeReport report;
    report.path = compose.path;
    HR_TRY(report.resolved, spec::resolve_compose(compose, environment));
    const auto hash_with = [&report](bool has_local_keys) {
        report.resolved.app.local_key_provider = has_local_keys;
        return crypto::sha256_hex(protocol::encode_app_compose(report.resolved.app));
    };
    report.hash_with_local_keys = hash_with(true);
    report.hash_without_local_keys = hash_with(false);
    HR_CHECK(print_out(make_formatter(context.settings.text("output"))->compose(report)));
    return to_int(ExitCode::success);
}

} // namespace host_runner::cli
