// SPDX-License-Identifier: Apache-2.0
#include "host_runner/libvirt/backend.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <fmt/format.h>

#include "backend_session.hpp"
#include "host_runner/base/files.hpp"

namespace host_runner::libvirt {

namespace {

/// "qemu+unix:///system?socket=/run/x" -> scheme, transport, host, path, without the query.
struct UriParts {
    std::string scheme, transport, host, path;
};

Result<UriParts> split_uri(const std::string& uri) {
    const auto bad = [&] {
        return fail(ErrorCode::invalid_argument, fmt::format("'{}' is no libvirt URI", uri),
                    "for example qemu:///system");
    };
    const auto colon = uri.find("://");
    if (colon == std::string::npos || colon == 0)
        return bad();
    UriParts parts;
    parts.scheme = uri.substr(0, colon);
    if (const auto plus = parts.scheme.find('+'); plus != std::string::npos) {
        parts.transport = parts.scheme.substr(plus + 1);
        parts.scheme.resize(plus);
    }
    const auto rest = uri.substr(colon + 3);
    const auto slash = rest.find('/');
    if (slash == std::string::npos)
        return bad();
    parts.host = rest.substr(0, slash);
    parts.path = rest.substr(slash, rest.find('?') - slash);
    return parts;
}

/// Beside the program, in the build folder as well as installed: PREFIX/bin/host_runner and
/// PREFIX/lib/host-runner/libvirt.so. Never unloaded: libvirt's event thread runs for ever.
Result<const HostRunnerLibvirtModule*> load_module() {
    HR_TRY(const auto program, canonical_path("/proc/self/exe"));
    const auto path = parent_path(parent_path(program)) + "/lib/host-runner/libvirt.so";
    void* const library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library == nullptr) {
        const char* const cause = ::dlerror();
        return fail(ErrorCode::unsupported,
                    fmt::format("The libvirt backend cannot be loaded: {}",
                                cause == nullptr ? path.c_str() : cause),
                    "install libvirt's library (apt install libvirt0) and host_runner as a whole, "
                    "or leave --backend out");
    }
    const auto function = reinterpret_cast<HostRunnerLibvirtModuleFunction>(
        ::dlsym(library, host_runner_libvirt_symbol));
    const auto* const module = function == nullptr ? nullptr : function();
    if (module == nullptr || module->abi != host_runner_libvirt_abi)
        return fail(ErrorCode::unsupported,
                    "The libvirt backend cannot be loaded: libvirt.so is of another version",
                    "install host_runner as a whole");
    return module;
}

class LibvirtBackend final : public instance::Backend {
public:
    explicit LibvirtBackend(spec::Backend asked) : asked_(std::move(asked)) {}

    Result<std::string> connect(spec::Tee tee) override {
        HR_TRY(uri_, choose_uri(asked_, ::geteuid()));
        HR_TRY(const auto* const module, load_module());
        session_ = std::make_unique<BackendSession>(*module, uri_);
        HR_TRY(version_, session_->connect());
        HR_CHECK(check_version(version_, tee));
        return fmt::format("libvirt {} at {}", format_version(version_), uri_);
    }

    [[nodiscard]] Result<std::string>
    describe(const qemu::LaunchPlan& plan, const instance::Placement& placement,
             const qemu::Capabilities& capabilities) const override {
        auto facts = domain_facts(uri_, ::geteuid(), ::getegid(), placement, capabilities.path);
        facts.version = version_;
        return build_domain_xml(plan, facts);
    }

    Result<std::unique_ptr<instance::Machine>> start(EventLoop& loop, instance::Launch launch,
                                                     instance::MachineHooks hooks) override {
        return session_->start(loop, launch.description, std::move(hooks));
    }

    [[nodiscard]] std::string name() const override {
        return "libvirt";
    }
    [[nodiscard]] std::string address() const override {
        return uri_;
    }
    [[nodiscard]] std::string machine_name(const std::string& instance_id) const override {
        return domain_name(instance_id);
    }

private:
    const spec::Backend asked_;
    std::string uri_;
    Version version_ = 0;
    std::unique_ptr<BackendSession> session_;
};

} // namespace

Result<std::string> choose_uri(const spec::Backend& backend, uid_t uid) {
    if (backend.uri.empty())
        return std::string(uid == 0 ? "qemu:///system" : "qemu:///session");
    HR_TRY(const auto parts, split_uri(backend.uri));
    if (parts.scheme != "qemu")
        return fail(ErrorCode::unsupported,
                    fmt::format("The libvirt driver of {} does not start QEMU", backend.uri),
                    "use a URI like qemu:///system");
    if (!parts.host.empty() || (!parts.transport.empty() && parts.transport != "unix"))
        return fail(ErrorCode::unsupported,
                    fmt::format("libvirt at {} may be on another machine, but the VM's disks and "
                                "sockets are on this one",
                                backend.uri),
                    "run host_runner on that machine, for example by ssh");
    if (parts.path == "/system" && uid != 0)
        return fail(ErrorCode::unsupported,
                    fmt::format("libvirt at {} belongs to root, as would the sockets that it makes "
                                "for this VM: this user could not talk to it",
                                backend.uri),
                    "use --backend libvirt=qemu:///session, which is this user's own, or run "
                    "host_runner as root");
    return backend.uri;
}

DomainFacts domain_facts(const std::string& uri, uid_t uid, gid_t gid,
                         const instance::Placement& placement, const std::string& qemu_path) {
    DomainFacts facts;
    facts.emulator = qemu_path;
    const auto parts = split_uri(uri);
    if (parts && parts->path == "/system")
        facts.user = DomainFacts::User{uid, gid};
    facts.hugepage_bytes = placement.page_bytes;
    facts.pinning = placement.pinning;
    return facts;
}

std::unique_ptr<instance::Backend> make_backend(const spec::Backend& backend) {
    return std::make_unique<LibvirtBackend>(backend);
}

} // namespace host_runner::libvirt
