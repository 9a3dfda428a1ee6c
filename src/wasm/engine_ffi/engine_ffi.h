/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the engine's archive exports beside wasmtime's C API. Written by hand; src/engine.rs, src/store_limits.rs,
 * src/component.rs and src/http_server.rs are the other side. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <wasm.h>
#include <wasmtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Takes config. Returns the engine, or NULL with *error set, which the caller deletes. */
wasm_engine_t *hr_engine_new(wasm_config_t *config, wasmtime_error_t **error);

/* Limits of one store, and what happened under them. Zero what is not a limit. */
typedef struct hr_store_limits {
    uint64_t memory_limit_bytes;     /* all linear memories and the GC heap together */
    uint64_t table_limit_elements;   /* each table */
    uint64_t memory_bytes;           /* now */
    uint64_t memory_peak_bytes;      /* at most so far */
    uint64_t memory_refused_bytes;   /* the total wanted when memory was last refused; 0: never */
    uint64_t table_refused_elements; /* the size wanted when a table was last refused; 0: never */
} hr_store_limits;

/* Puts the store under limits, before anything is instantiated in it. limits must stay in place while the store lives. */
void hr_store_set_limits(wasmtime_store_t *store, hr_store_limits *limits);

/* Takes config. Translates a component to native code. Returns NULL with *artifact set, which the caller deletes, or an error. */
wasmtime_error_t *hr_component_compile(wasm_config_t *config, const uint8_t *bytes, size_t size, wasm_byte_vec_t *artifact);

/* Serving components of the world wasi:http/proxy. */
typedef struct hr_http_server hr_http_server;

/* UTF-8 without a NUL; data may be NULL where nothing is meant. */
typedef struct hr_text {
    const char *data;
    size_t size;
} hr_text;

/* Whom guests may send requests to: "HOST:PORT", always with the port, and the "IP:PORT" to connect to. */
typedef struct hr_http_authority {
    hr_text name;
    hr_text address;
} hr_http_authority;

/* What is counted; those from hr_http_trapped on also come as events, except the two that say otherwise. */
enum hr_http_kind {
    hr_http_connection,
    hr_http_request,
    hr_http_bad_request,
    hr_http_rejected,
    hr_http_trapped,
    hr_http_timed_out,
    hr_http_out_of_memory,
    hr_http_guest_failed,
    hr_http_client_gone,     /* no event */
    hr_http_client_too_slow, /* no event */
    hr_http_tls_failed,
    hr_http_outgoing, /* no event */
    hr_http_outgoing_denied,
    hr_http_accept_failed,
    hr_http_kinds /* how many there are */
};

/* Everything is read during hr_http_server_new only, except event_user, which is given to event, and counters. No number may be zero, other
 * than keep_resident_bytes, wait_for_place_ms and outgoing_connections. */
typedef struct hr_http_settings {
    uint32_t threads;
    uint32_t places; /* instances alive at a time */
    uint64_t memory_bytes; /* of one instance; a multiple of 64 KiB */
    uint64_t keep_resident_bytes;
    uint32_t table_elements;
    uint32_t tables;
    uint32_t memories;
    uint32_t core_instances;
    uint32_t tick_ms;
    uint32_t request_timeout_ms;
    uint32_t wait_for_place_ms;
    uint32_t connections;
    uint32_t header_timeout_ms;
    uint32_t idle_timeout_ms;
    uint32_t body_timeout_ms;
    uint32_t header_bytes; /* at least 8192 */
    uint32_t headers;
    uint32_t outgoing_connections;
    uint32_t outgoing_timeout_ms;
    int stdout_fd; /* duplicated; -1: none. So is the next one. */
    int stderr_fd;
    uint64_t request_body_bytes;
    const hr_text *environment; /* "NAME=VALUE" */
    size_t environment_count;
    const hr_text *arguments;
    size_t argument_count;
    const hr_http_authority *outgoing;
    size_t outgoing_count;
    hr_text outgoing_ca_pem; /* whom to trust for https; empty: https fails */
    hr_text certificate_pem; /* the chain, own certificate first; with the key empty: no TLS */
    hr_text key_pem;
    /* Called from any thread, also several at once; must not wait. May be NULL. text is not ended by a NUL. */
    void (*event)(void *user, uint32_t kind, const char *text, size_t size);
    void *event_user;
    /* hr_http_kinds numbers, aligned to eight bytes, to which the server adds from any thread. They outlive it. */
    uint64_t *counters;
} hr_http_settings;

enum hr_http_part { hr_http_settings_part = 1, hr_http_engine_part, hr_http_component_part, hr_http_tls_part, hr_http_system_part };

/* Takes config and listener_fd, a listening TCP socket or -1 to serve calls only, also when it fails. The server answers when this returns. Returns NULL
 * with *part (hr_http_part) and *error set, which the caller deletes. */
hr_http_server *hr_http_server_new(wasm_config_t *config, const hr_http_settings *settings, const uint8_t *artifact,
                                   size_t artifact_size, int listener_fd, uint32_t *part, wasmtime_error_t **error);

/* Stops accepting, gives the requests that run grace_ms, and drops what is left. Returns how many those were. */
uint64_t hr_http_server_stop(hr_http_server *server, uint32_t grace_ms);

/* A request that comes on no connection: POST path, with this body. Everything is read during the call only. */
typedef struct hr_http_call {
    hr_text path;
    hr_text body;
    const hr_text *environment; /* "NAME=VALUE"; wins over the settings' */
    size_t environment_count;
    uint32_t timeout_ms; /* in place of request_timeout_ms */
    int cancel_fd; /* ends the call once it is readable */
    /* Gets the answer's body piece by piece, on the calling thread. Returns false to end the call. */
    bool (*output)(void *user, const char *bytes, size_t size);
    /* Gets an hr_http_kind and why; client_gone: cancelled. Once, when the call returns 0. */
    void (*failed)(void *user, uint32_t kind, const char *text, size_t size);
    void *user;
} hr_http_call;

/* Blocks until the answer has ended, and returns its status; 0 after failed. From any thread that is not the server's. */
uint32_t hr_http_server_call(const hr_http_server *server, const hr_http_call *call);

/* Stops it without any grace first, where it has not been stopped. */
void hr_http_server_free(hr_http_server *server);

#ifdef __cplusplus
}
#endif
