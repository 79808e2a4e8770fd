/*
 * checkpost_filter.h - the contract between Checkpost and a filter in a shared library. ABI version 1.
 *
 * A filter looks at mails and reports what it finds. It does not decide: the administrator's rules do. A library exports
 * one symbol, `checkpost_filter`, a constant structure of the type checkpost_filter_descriptor. Checkpost, the host, loads
 * the library, reads that structure, and calls the three functions in it:
 *
 *     create   once for each section of the configuration that names the library, at start and at each reload
 *     check    for every mail
 *     destroy  when a configuration is no longer used and its last check has returned
 *
 * THREADS. `check` is called by several threads at once with the same instance (the key `threads` of the configuration is
 *   the bound), so the instance must be safe for that. `create` and `destroy` are called once for each instance, by any
 *   thread; `create` returns before the first `check` begins, `destroy` begins after the last `check` has returned. The
 *   threads are the host's, with stacks of at least 1 MiB. Threads of the library's own are allowed.
 *
 * WHO OWNS WHAT. Nothing changes hands. What the host passes in (views, strings, callbacks) belongs to the host and is
 *   valid until the function that got it returns; whoever needs it longer copies it. What the library passes to a callback
 *   belongs to the library, and the host has copied what it needs when the callback returns. The host frees no memory of
 *   the library's and never looks at an instance. The host does not notice memory that the library never frees.
 *
 * CALLBACKS. The functions in checkpost_host and checkpost_mail may be called by any thread, at any time until the function
 *   that got the structure returns, and never later. Their first argument is the structure they were found in, itself, not
 *   a copy of it.
 *
 * TIME. All functions block. `check` should return before mail->left_ms gives 0 and when mail->cancelled gives 1: then
 *   nobody waits for it any more. A call cannot be interrupted: one that does not return holds its thread for good. When
 *   all threads of a filter are held like that, its mails are not checked until one returns.
 *
 * FAILING. "Could not look" is not "found nothing". Whatever is not a complete look must end with a code other than
 *   CHECKPOST_OK. What was reported before counts all the same.
 *
 * CRASHES. The library runs within the daemon: a crash (SIGSEGV, abort, exit) ends it with all mail sessions in it. No
 *   mail is lost by that, it is sent again. No C++ exception and no longjmp may leave a function. A filter that cannot be
 *   trusted so far belongs in a process of its own.
 *
 * LOADING. The library is loaded with RTLD_NOW | RTLD_LOCAL and never unloaded; it stays when a reload no longer names it.
 *   It is opened by descriptor, so DT_RUNPATH cannot use $ORIGIN. Before the daemon loads it, and whenever a configuration
 *   is checked, a short-lived process loads it, calls `create` and `destroy` with the settings, and tells how that went. So
 *   neither constructors nor `create` may change anything outside the process, such as bind a port or write a file.
 *
 * VERSIONS. CHECKPOST_FILTER_ABI changes with every incompatible change; a host refuses versions that it does not know.
 *   The structures that the host passes in have their size first. They may grow at the end within a version, so a library
 *   that wants a member added later looks at the size first. checkpost_filter_descriptor and checkpost_finding do not
 *   change within a version.
 *
 * Integers are in the machine's own byte order. Strings are octets with a length, not closed by NUL. Text that the library
 * gives is UTF-8. This header is C11 and C++17; the host runs on 64-bit Linux.
 */
#ifndef CHECKPOST_FILTER_H
#define CHECKPOST_FILTER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CHECKPOST_FILTER_MAGIC UINT64_C(0x4350464c54455200)
#define CHECKPOST_FILTER_ABI UINT32_C(1)

/* Octets of which the host owns a string that it passed in, the library one that it passed out. `data` may be NULL if and
 * only if `length` is 0; from the host it is NULL where something is not known, and another pointer where it is empty. */
typedef struct checkpost_str {
    const char *data;
    size_t length;
} checkpost_str;

/* A string literal as the initialiser of a checkpost_str. */
#define CHECKPOST_STR(literal) { (literal), sizeof(literal) - 1 }

/* What is found, coarsely: what rules are written for. */
#define CHECKPOST_MALWARE UINT32_C(1)   /* a virus, worm, trojan */
#define CHECKPOST_PHISHING UINT32_C(2)  /* a fraud to get credentials */
#define CHECKPOST_SPAM UINT32_C(3)      /* unwanted bulk mail; the one kind with a score */
#define CHECKPOST_POLICY UINT32_C(4)    /* against a rule of the house */
#define CHECKPOST_ENCRYPTED UINT32_C(5) /* a part is encrypted, so that nobody looked into it */
#define CHECKPOST_LIMIT UINT32_C(6)     /* a bound of the filter's own was reached before all was looked at */
#define CHECKPOST_AUTH UINT32_C(7)      /* a result of SPF, DKIM, DMARC or ARC */

/* The bit of a kind, for checkpost_filter_descriptor.finds. */
#define CHECKPOST_FINDS(kind) (UINT32_C(1) << (kind))

/* What create and check return. Any other value is garbage; the mail then counts as not looked at. */
#define CHECKPOST_OK 0         /* done. check: all was looked at, and all that was found was reported */
#define CHECKPOST_ERROR 1      /* the filter itself could not (rules missing, a service down) */
#define CHECKPOST_TOO_LARGE 2  /* the mail is larger than the filter looks at */
#define CHECKPOST_UNREADABLE 3 /* some part could not be looked into */
#define CHECKPOST_TIMEOUT 4    /* not done in time, or cancelled */
#define CHECKPOST_BUSY 5       /* too much work at once */
#define CHECKPOST_READ_ERROR 6 /* mail->read_at failed */
#define CHECKPOST_PANICKED 7   /* the filter caught a crash of its own */

/* What callbacks return. */
#define CHECKPOST_TAKEN 0   /* done */
#define CHECKPOST_REFUSED 1 /* what was passed breaks the contract; the mail counts as not wholly looked at */
#define CHECKPOST_STOP 2    /* nobody waits for it, or more than CHECKPOST_MAX_FINDINGS: return soon */

/* Bounds on what the library passes out: octets, and number. Breaking one breaks the contract. */
#define CHECKPOST_MAX_NAME 256      /* a finding's name; the descriptor's name and version: see there */
#define CHECKPOST_MAX_CLASS 64      /* a finding's class */
#define CHECKPOST_MAX_PART 512      /* a finding's part */
#define CHECKPOST_MAX_DETAIL 1024   /* a finding's detail, an explanation; longer log lines are cut */
#define CHECKPOST_MAX_FINDINGS 1000 /* findings in one mail */
#define CHECKPOST_MAX_LOG_LINES 100 /* log lines in one call; the rest is not written, which is no breach */

/* How important a log line is. */
#define CHECKPOST_LOG_ERROR UINT32_C(1) /* an administrator must act */
#define CHECKPOST_LOG_WARN UINT32_C(2)
#define CHECKPOST_LOG_INFO UINT32_C(3)
#define CHECKPOST_LOG_DEBUG UINT32_C(4)

/* One thing found in a mail. */
typedef struct checkpost_finding {
    size_t size;          /* sizeof(checkpost_finding) */
    uint32_t kind;        /* CHECKPOST_MALWARE ... */
    float score;          /* CHECKPOST_SPAM: points, finite, may be negative. Other kinds: not read */
    checkpost_str name;   /* the signature, symbol or rule. Not empty */
    checkpost_str class_; /* a finer class for rules, of a-z, 0-9 and "-", such as "heuristic"; empty: the kind's name */
    checkpost_str part;   /* where: "1.2", "1.2/a.zip/b.exe"; empty: the mail as a whole */
    checkpost_str detail; /* more, for the log; may be empty */
} checkpost_finding;

/* The host, for create and, as mail->host, for check. */
typedef struct checkpost_host checkpost_host;
struct checkpost_host {
    size_t size;         /* sizeof(checkpost_host) of the host's version */
    const void *context; /* the host's own */

    /* Writes one line to the host's log, with the filter's name and the mail's id. */
    void (*log)(const checkpost_host *host, uint32_t level, checkpost_str text);

    /* Says why the function is going to return something other than CHECKPOST_OK, for the log or the administrator: one
     * clause. Of several the last counts. */
    void (*explain)(const checkpost_host *host, checkpost_str text);
};

/* One key and its value from the table `settings` of the configuration. A value is a text: strings as they are, integers
 * and floats in decimal, booleans "true" or "false", dates as written. A list is as many settings with the same key, in
 * the order of the list; an empty one is none. A table in the table has its keys joined by dots: "limits.depth". Neither key
 * nor value has a NUL octet. Both are UTF-8. */
typedef struct checkpost_setting {
    checkpost_str key;
    checkpost_str value;
} checkpost_setting;

/* One mail. */
typedef struct checkpost_mail checkpost_mail;
struct checkpost_mail {
    size_t size;                /* sizeof(checkpost_mail) of the host's version */
    const void *context;        /* the host's own */
    const checkpost_host *host; /* never NULL */

    checkpost_str id;                /* the host's name for this mail, in all its log lines */
    checkpost_str sender;            /* envelope sender as the protocol gave it, without <>; empty: the null sender */
    const checkpost_str *recipients; /* envelope recipients, in order, duplicates included */
    size_t recipient_count;          /* at least 1 */

    checkpost_str way;         /* the name of the way in, from the configuration */
    checkpost_str origin;      /* "inbound", "submission" or "internal" */
    checkpost_str client;      /* the sending client's IP address in text; or not known */
    checkpost_str client_name; /* its host name; or not known */
    checkpost_str helo;        /* what it said at HELO; or not known */
    checkpost_str user;        /* the authenticated user; not known if there is none */
    checkpost_str queue_id;    /* the mail server's own id; or not known */
    uint32_t tls;              /* 1: it came over TLS */
    uint32_t reserved;         /* 0 */

    /* Header and body. Lines end as the way in has them: CRLF by SMTP and milter, LF from qmail and Courier. */
    uint64_t length;        /* octets of it */
    const uint8_t *content; /* all of it when it is in memory (small mails mostly are); else NULL: use read_at */

    /* Reads up to `count` octets at `offset` into `buffer`, whether the content is in memory or not. Returns how many were
     * read, 0 at the end of the content and beyond it, or -1 when the host could not read: return CHECKPOST_READ_ERROR
     * then. May read less than asked before the end. */
    int64_t (*read_at)(const checkpost_mail *mail, uint64_t offset, void *buffer, size_t count);

    /* Milliseconds until the findings must be there; 0: too late. */
    uint64_t (*left_ms)(const checkpost_mail *mail);

    /* 1: nobody waits for the findings any more; return soon, with CHECKPOST_TIMEOUT. */
    int32_t (*cancelled)(const checkpost_mail *mail);

    /* Reports a finding. Returns CHECKPOST_TAKEN, CHECKPOST_REFUSED or CHECKPOST_STOP. */
    int32_t (*report)(const checkpost_mail *mail, const checkpost_finding *finding);
};

/* What a library exports. All of it is constant; strings and functions are valid as long as the process lives. */
typedef struct checkpost_filter_descriptor {
    uint64_t magic; /* CHECKPOST_FILTER_MAGIC */
    uint32_t abi;   /* CHECKPOST_FILTER_ABI */
    uint32_t size;  /* sizeof(checkpost_filter_descriptor) */

    checkpost_str name;    /* of the product, for people: 1 to 64 octets of UTF-8, no control characters */
    checkpost_str version; /* its version: up to 64 octets of UTF-8, no control characters; may be empty */
    uint32_t finds;        /* CHECKPOST_FINDS(...) of every kind that it can report; at least one */
    uint32_t reserved;     /* 0 */

    /* Makes an instance of these settings and puts it into *instance, which may be NULL. On a return of something other
     * than CHECKPOST_OK, what *instance is does not matter and destroy is not called; say why with host->explain. A key
     * that the filter does not know should be an error: it is a typing mistake mostly. */
    int32_t (*create)(const checkpost_host *host, const checkpost_setting *settings, size_t setting_count,
                      void **instance);

    /* Looks at one mail. */
    int32_t (*check)(void *instance, const checkpost_mail *mail);

    /* Ends an instance. Not called when the process ends. */
    void (*destroy)(void *instance);
} checkpost_filter_descriptor;

#if defined(__GNUC__)
#define CHECKPOST_EXPORT __attribute__((visibility("default")))
#else
#define CHECKPOST_EXPORT
#endif

/* To be defined by the library. */
extern CHECKPOST_EXPORT const checkpost_filter_descriptor checkpost_filter;

#ifdef __cplusplus
}
#endif

#endif
