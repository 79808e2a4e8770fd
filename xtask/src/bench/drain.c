/* What no program in qmail-queue's place can be faster than: reads both descriptors to their ends, and ends. */
#include <unistd.h>

int main(void) {
    char block[32768];
    int fd;
    for (fd = 0; fd < 2; fd++)
        while (read(fd, block, sizeof block) > 0)
            ;
    return 0;
}
