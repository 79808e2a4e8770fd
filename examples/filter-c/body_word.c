/*
 * An example: flags mails that have a word somewhere in their content, as it stands (it decodes nothing, so it is a model
 * and no protection).
 *
 *     [filter.body-word]
 *     kind = "library"
 *     path = "/usr/lib/checkpost/body_word.so"
 *     settings = { word = "confidential" }
 */
#include <stdlib.h>
#include <string.h>

#include "checkpost_filter.h"

#define PIECE 65536

/* What create makes of the settings. Only read afterwards, so any number of threads may use it at once. */
struct body_word {
    size_t length;
    char word[];
};

static int is(checkpost_str text, const char *literal) {
    return text.length == strlen(literal) && memcmp(text.data, literal, text.length) == 0;
}

static int32_t refuse(const checkpost_host *host, const char *why) {
    checkpost_str text = { why, strlen(why) };
    host->explain(host, text);
    return CHECKPOST_ERROR;
}

static int32_t create(const checkpost_host *host, const checkpost_setting *settings, size_t count, void **instance) {
    checkpost_str word = { NULL, 0 };
    for (size_t i = 0; i < count; i++) {
        if (!is(settings[i].key, "word"))
            return refuse(host, "unknown key; accepted: word");
        word = settings[i].value;
    }
    if (word.length == 0 || word.length > 1000)
        return refuse(host, "the setting \"word\" is missing; accepted: a text of 1 to 1000 octets");
    struct body_word *made = malloc(sizeof *made + word.length);
    if (made == NULL)
        return refuse(host, "no memory");
    /* The host's string is gone when create has returned. */
    made->length = word.length;
    memcpy(made->word, word.data, word.length);
    *instance = made;
    return CHECKPOST_OK;
}

static int contains(const char *text, size_t length, const struct body_word *filter) {
    for (size_t i = 0; i + filter->length <= length; i++)
        if (memcmp(text + i, filter->word, filter->length) == 0)
            return 1;
    return 0;
}

static int32_t check(void *instance, const checkpost_mail *mail) {
    const struct body_word *filter = instance;
    char *buffer = malloc(PIECE + filter->length);
    int32_t code = CHECKPOST_OK;
    if (buffer == NULL)
        return refuse(mail->host, "no memory");
    size_t kept = 0; /* the end of the piece before: the word may lie across two pieces */
    for (uint64_t offset = 0; offset < mail->length;) {
        if (mail->cancelled(mail)) {
            code = CHECKPOST_TIMEOUT;
            break;
        }
        int64_t read = mail->read_at(mail, offset, buffer + kept, PIECE);
        if (read <= 0) {
            code = CHECKPOST_READ_ERROR;
            break;
        }
        size_t length = kept + (size_t)read;
        if (contains(buffer, length, filter)) {
            const checkpost_finding finding = {
                .size = sizeof finding,
                .kind = CHECKPOST_POLICY,
                .name = CHECKPOST_STR("Body.Word"),
                .class_ = CHECKPOST_STR("word"),
                .detail = { filter->word, filter->length },
            };
            mail->report(mail, &finding);
            break;
        }
        offset += (uint64_t)read;
        kept = length < filter->length - 1 ? length : filter->length - 1;
        memmove(buffer, buffer + length - kept, kept);
    }
    free(buffer);
    return code;
}

static void destroy(void *instance) {
    free(instance);
}

const checkpost_filter_descriptor checkpost_filter = {
    .magic = CHECKPOST_FILTER_MAGIC,
    .abi = CHECKPOST_FILTER_ABI,
    .size = sizeof(checkpost_filter_descriptor),
    .name = CHECKPOST_STR("body word (example)"),
    .version = CHECKPOST_STR("1.0"),
    .finds = CHECKPOST_FINDS(CHECKPOST_POLICY),
    .create = create,
    .check = check,
    .destroy = destroy,
};
