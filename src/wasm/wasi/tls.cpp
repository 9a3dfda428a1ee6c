// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/wasi/tls.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <sys/socket.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "host_runner/base/delete_by.hpp"

namespace host_runner::wasm::wasi {

namespace {

using Clock = std::chrono::steady_clock;

using Bio = std::unique_ptr<BIO, DeleteBy<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, DeleteBy<X509_free>>;
using PrivateKey = std::unique_ptr<EVP_PKEY, DeleteBy<EVP_PKEY_free>>;
using SslContext = std::unique_ptr<SSL_CTX, DeleteBy<SSL_CTX_free>>;
using SslHandle = std::unique_ptr<SSL, DeleteBy<SSL_free>>;

constexpr std::size_t record_bytes = 16384; // RFC 8446, section 5.1

/// The oldest error of OpenSSL in this thread, in words; clears them all.
std::string take_error() {
    std::array<char, 256> text{};
    const auto code = ERR_get_error();
    ERR_clear_error();
    if (code == 0)
        return "no details";
    ERR_error_string_n(code, text.data(), text.size());
    return text.data();
}

// A BIO of our own, because OpenSSL's for sockets writes with write(), which raises SIGPIPE.

int socket_of(BIO* bio) {
    return static_cast<int>(reinterpret_cast<std::intptr_t>(BIO_get_data(bio)));
}

int bio_write(BIO* bio, const char* data, int size) {
    BIO_clear_retry_flags(bio);
    const auto count =
        ::send(socket_of(bio), data, static_cast<std::size_t>(size), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_write(bio);
    return static_cast<int>(count);
}

int bio_read(BIO* bio, char* data, int size) {
    BIO_clear_retry_flags(bio);
    const auto count = ::recv(socket_of(bio), data, static_cast<std::size_t>(size), MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_read(bio);
    if (count == 0)
        BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
    return static_cast<int>(count);
}

long bio_control(BIO* bio, int command, long /*number*/, void* /*pointer*/) {
    if (command == BIO_CTRL_EOF)
        return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

const BIO_METHOD* socket_method() {
    static const BIO_METHOD* const method = [] {
        BIO_METHOD* made =
            BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket without SIGPIPE");
        if (made != nullptr) {
            BIO_meth_set_write(made, bio_write);
            BIO_meth_set_read(made, bio_read);
            BIO_meth_set_ctrl(made, bio_control);
        }
        return made;
    }();
    return method;
}

Bio socket_bio(int fd) {
    const auto* method = socket_method();
    Bio bio(method == nullptr ? nullptr : BIO_new(method));
    if (bio) {
        // NOLINTNEXTLINE(performance-no-int-to-ptr): all that OpenSSL keeps for us is a pointer.
        BIO_set_data(bio.get(), reinterpret_cast<void*>(static_cast<std::intptr_t>(fd)));
        BIO_set_init(bio.get(), 1);
    }
    return bio;
}

/// Refuses a key with a password instead of asking on the terminal.
int no_password(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*user*/) {
    return 0;
}

std::vector<Certificate> read_certificates(const std::string& pem) {
    std::vector<Certificate> list;
    const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
    while (bio) {
        Certificate next(PEM_read_bio_X509(bio.get(), nullptr, no_password, nullptr));
        if (!next)
            break;
        list.push_back(std::move(next));
    }
    ERR_clear_error(); // the end of the text counts as an error
    return list;
}

Result<SslContext> new_context(const SSL_METHOD* method) {
    SslContext context(SSL_CTX_new(method));
    if (!context || SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(context.get(), TLS1_3_VERSION) != 1)
        return fail(ErrorCode::resource_exhausted,
                    "Cannot prepare TLS 1.3: OpenSSL says " + take_error());
    SSL_CTX_set_mode(context.get(),
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
    return context;
}

bool is_address(const std::string& host) {
    std::array<unsigned char, sizeof(in6_addr)> address{};
    return ::inet_pton(AF_INET, host.c_str(), address.data()) == 1 ||
           ::inet_pton(AF_INET6, host.c_str(), address.data()) == 1;
}

bool is_dns_name(const std::string& host) {
    constexpr std::string_view characters = "abcdefghijklmnopqrstuvwxyz"
                                            "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    return !host.empty() && host.size() <= 253 && host.front() != '.' &&
           host.find_first_not_of(characters) == std::string::npos;
}

bool expect_host(SSL* ssl, const std::string& host) {
    if (is_address(host))
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str()) == 1;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, host.c_str()) == 1 &&
           SSL_set_tlsext_host_name(ssl, host.c_str()) == 1;
}

} // namespace

struct TlsSession::State {
    SslHandle ssl;
    Clock::time_point limit;
    bool established = false;
    bool close_sent = false;
    std::optional<TlsStatus> ended; ///< How the session broke; OpenSSL is not asked any more then.
    std::vector<std::byte> kept;    ///< Given by the user, not yet taken by the socket.
    std::string failure;

    [[nodiscard]] TlsProgress progress(int result, std::size_t bytes) noexcept;
    [[nodiscard]] TlsStatus broken(int reason) noexcept;
    template <class Operation>
    [[nodiscard]] TlsProgress receive(std::span<std::byte> into, Operation operation) noexcept;
};

TlsStatus TlsSession::State::broken(int reason) noexcept {
    const auto code = ERR_peek_error();
    const bool end_of_stream =
        reason == SSL_ERROR_SYSCALL ||
        (reason == SSL_ERROR_SSL && ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING);
    ended = end_of_stream && established ? TlsStatus::truncated : TlsStatus::failed;
    try {
        const auto verified = SSL_get_verify_result(ssl.get());
        failure = verified != X509_V_OK ? X509_verify_cert_error_string(verified)
                  : code == 0           ? "The stream ended"
                                        : take_error();
    } catch (...) { // without memory for the words the status has to do
        failure.clear();
    }
    ERR_clear_error();
    return *ended;
}

TlsProgress TlsSession::State::progress(int result, std::size_t bytes) noexcept {
    if (result > 0)
        return {TlsStatus::done, bytes};
    const int reason = SSL_get_error(ssl.get(), result);
    switch (reason) {
    case SSL_ERROR_WANT_READ:
        return {TlsStatus::want_read, 0};
    case SSL_ERROR_WANT_WRITE:
        return {TlsStatus::want_write, 0};
    case SSL_ERROR_ZERO_RETURN:
        return {TlsStatus::closed, 0};
    default:
        return {broken(reason), 0};
    }
}

TlsSession::TlsSession(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
TlsSession::~TlsSession() = default;

TlsProgress TlsSession::handshake() noexcept {
    if (state_->ended)
        return {*state_->ended, 0};
    if (state_->established)
        return {TlsStatus::done, 0};
    if (Clock::now() >= state_->limit) {
        state_->ended = TlsStatus::timed_out;
        return {TlsStatus::timed_out, 0};
    }
    ERR_clear_error();
    const auto progress = state_->progress(SSL_do_handshake(state_->ssl.get()), 0);
    state_->established = progress.status == TlsStatus::done;
    // A peer that closes in the midst of the handshake has not ended a stream.
    if (progress.status == TlsStatus::closed)
        return {*(state_->ended = TlsStatus::failed), 0};
    return progress;
}

template <class Operation>
TlsProgress TlsSession::State::receive(std::span<std::byte> into, Operation operation) noexcept {
    std::size_t count = 0;
    ERR_clear_error();
    const int result = operation(ssl.get(), into.data(), into.size(), &count);
    return progress(result, count);
}

TlsProgress TlsSession::read(std::span<std::byte> into) noexcept {
    if (const auto ready = handshake(); ready.status != TlsStatus::done)
        return ready;
    static_cast<void>(flush()); // a peer may wait for it before it answers
    if (state_->ended)
        return {*state_->ended, 0};
    return state_->receive(into, SSL_read_ex);
}

TlsProgress TlsSession::peek(std::span<std::byte> into) noexcept {
    if (const auto ready = handshake(); ready.status != TlsStatus::done)
        return ready;
    return state_->receive(into, SSL_peek_ex);
}

TlsProgress TlsSession::flush() noexcept {
    if (const auto ready = handshake(); ready.status != TlsStatus::done)
        return ready;
    if (state_->kept.empty())
        return {TlsStatus::done, 0};
    std::size_t count = 0;
    ERR_clear_error();
    const auto progress = state_->progress(
        SSL_write_ex(state_->ssl.get(), state_->kept.data(), state_->kept.size(), &count), 0);
    if (progress.status == TlsStatus::done)
        state_->kept.erase(state_->kept.begin(),
                           state_->kept.begin() + static_cast<std::ptrdiff_t>(count));
    return state_->kept.empty() || progress.status != TlsStatus::done
               ? progress
               : TlsProgress{TlsStatus::want_write, 0};
}

TlsProgress TlsSession::write(std::span<const std::byte> from) noexcept {
    if (const auto ready = flush(); ready.status != TlsStatus::done)
        return ready;
    if (state_->close_sent)
        return {TlsStatus::failed, 0};
    if (from.empty())
        return {TlsStatus::done, 0};
    from = from.first(std::min(from.size(), record_bytes));
    try {
        // Room first: once OpenSSL has made a record of the bytes they must not be lost.
        state_->kept.reserve(record_bytes);
    } catch (...) {
        return {TlsStatus::failed, 0};
    }
    std::size_t count = 0;
    ERR_clear_error();
    const auto progress =
        state_->progress(SSL_write_ex(state_->ssl.get(), from.data(), from.size(), &count), count);
    if (progress.status == TlsStatus::done)
        return {TlsStatus::done, count};
    if (progress.status != TlsStatus::want_read && progress.status != TlsStatus::want_write)
        return progress;
    // OpenSSL insists on the same bytes next time, but the user may come with others.
    state_->kept.assign(from.begin(), from.end());
    return {TlsStatus::done, from.size()};
}

TlsProgress TlsSession::close_notify() noexcept {
    if (const auto ready = flush(); ready.status != TlsStatus::done)
        return ready;
    if (state_->close_sent)
        return {TlsStatus::done, 0};
    ERR_clear_error();
    const int result = SSL_shutdown(state_->ssl.get());
    if (result < 0)
        return state_->progress(result, 0);
    state_->close_sent = true;
    return {TlsStatus::done, 0};
}

bool TlsSession::is_established() const noexcept {
    return state_->established;
}

std::optional<Clock::time_point> TlsSession::limit() const noexcept {
    if (state_->established)
        return std::nullopt;
    return state_->limit;
}

std::size_t TlsSession::pending_bytes() const noexcept {
    const int count = SSL_pending(state_->ssl.get());
    return count > 0 ? static_cast<std::size_t>(count) : 0;
}

const std::string& TlsSession::failure() const noexcept {
    return state_->failure;
}

namespace {

Result<std::unique_ptr<TlsSession::State>> new_session(SSL_CTX* context, int fd,
                                                       std::chrono::milliseconds timeout) {
    auto state = std::make_unique<TlsSession::State>();
    state->ssl.reset(SSL_new(context));
    auto bio = socket_bio(fd);
    if (!state->ssl || !bio)
        return fail(ErrorCode::resource_exhausted,
                    "Cannot start a TLS session: OpenSSL says " + take_error());
    auto* const owned_by_ssl = bio.release();
    SSL_set_bio(state->ssl.get(), owned_by_ssl, owned_by_ssl);
    state->limit = Clock::now() + timeout;
    return state;
}

} // namespace

struct TlsServer::State {
    SslContext context;
    std::chrono::milliseconds handshake_timeout;
};

TlsServer::TlsServer(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
TlsServer::~TlsServer() = default;

namespace {

Result<void> use_certificates(SSL_CTX* context, const std::string& pem) {
    const auto chain = read_certificates(pem);
    if (chain.empty())
        return fail(ErrorCode::invalid_argument, "The certificate chain holds no certificate",
                    "Give certificates in PEM form, the server's own first");
    if (SSL_CTX_use_certificate(context, chain.front().get()) != 1)
        return fail(ErrorCode::invalid_argument,
                    "The server's certificate cannot be used: OpenSSL says " + take_error());
    for (std::size_t i = 1; i < chain.size(); ++i)
        if (SSL_CTX_add1_chain_cert(context, chain[i].get()) != 1)
            return fail(ErrorCode::invalid_argument,
                        "The certificate chain cannot be used: OpenSSL says " + take_error());
    return {};
}

Result<void> use_key(SSL_CTX* context, const std::string& pem) {
    const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
    const PrivateKey key(bio ? PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr)
                             : nullptr);
    if (!key)
        return fail(ErrorCode::invalid_argument,
                    "The TLS key cannot be read: OpenSSL says " + take_error(),
                    "Give one private key in PEM form without a password");
    if (SSL_CTX_use_PrivateKey(context, key.get()) != 1 || SSL_CTX_check_private_key(context) != 1)
        return fail(ErrorCode::invalid_argument,
                    "The TLS key does not belong to the certificate: OpenSSL says " + take_error());
    return {};
}

} // namespace

Result<std::shared_ptr<const TlsServer>> TlsServer::create(const TlsServerOptions& options) {
    HR_TRY(auto context, new_context(TLS_server_method()));
    HR_CHECK(use_certificates(context.get(), options.certificate_chain_pem));
    HR_CHECK(use_key(context.get(), options.private_key_pem));
    // Sessions are not resumed, and a ticket would make a silent stream look readable.
    SSL_CTX_set_num_tickets(context.get(), 0);
    return std::make_shared<const TlsServer>(
        std::make_unique<State>(State{std::move(context), options.handshake_timeout}));
}

Result<std::unique_ptr<TlsSession>> TlsServer::start(int fd) const {
    ERR_clear_error();
    HR_TRY(auto session, new_session(state_->context.get(), fd, state_->handshake_timeout));
    SSL_set_accept_state(session->ssl.get());
    return std::make_unique<TlsSession>(std::move(session));
}

struct TlsClient::State {
    SslContext context;
    std::chrono::milliseconds handshake_timeout;
};

TlsClient::TlsClient(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
TlsClient::~TlsClient() = default;

Result<std::shared_ptr<const TlsClient>> TlsClient::create(const TlsClientOptions& options) {
    HR_TRY(auto context, new_context(TLS_client_method()));
    const auto trusted = read_certificates(options.ca_certificates_pem);
    if (trusted.empty())
        return fail(ErrorCode::invalid_argument, "The set of trusted certificates is empty",
                    "Give the certificates of the authorities to trust in PEM form");
    auto* const trust = SSL_CTX_get_cert_store(context.get());
    for (const auto& certificate : trusted)
        if (X509_STORE_add_cert(trust, certificate.get()) != 1)
            return fail(ErrorCode::resource_exhausted,
                        "Cannot trust a certificate: OpenSSL says " + take_error());
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
    return std::make_shared<const TlsClient>(
        std::make_unique<State>(State{std::move(context), options.handshake_timeout}));
}

Result<std::unique_ptr<TlsSession>> TlsClient::start(int fd, const std::string& host) const {
    if (!is_address(host) && !is_dns_name(host))
        return fail(ErrorCode::invalid_argument,
                    "\"" + host + "\" is neither a DNS name nor an address");
    ERR_clear_error();
    HR_TRY(auto session, new_session(state_->context.get(), fd, state_->handshake_timeout));
    SSL_set_connect_state(session->ssl.get());
    if (!expect_host(session->ssl.get(), host))
        return fail(ErrorCode::resource_exhausted,
                    "Cannot set the TLS peer's name: OpenSSL says " + take_error());
    return std::make_unique<TlsSession>(std::move(session));
}

} // namespace host_runner::wasm::wasi
