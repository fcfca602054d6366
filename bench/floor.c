/* The floor: what a core must spend on a streamed chunk before any logic of a program.
 *
 * One epoll loop reads every stream with recvmsg and the kernel's receive timestamp and counts; it parses nothing and
 * keeps nothing. Each of STREAMS connections asks for TOKENS tokens, ROUNDS times in a row; they start over 2 s, as a
 * closed stage's slots do. Prints chunks and the CPU time of the whole process, as JSON.
 *
 *     cc -O2 -o floor floor.c && ./floor PORT STREAMS TOKENS ROUNDS
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 1024
#define RAMP_UP_US 2000000
#define SILENCE_MS 10000

static const char END[] = "0\r\n\r\n"; /* the last chunk of an HTTP message */

struct stream { int fd; unsigned rounds_left; };

static char request[1024];
static int request_len;

static void make_request(unsigned tokens) {
    char body[512];
    int body_len = snprintf(body, sizeof body,
        "{\"model\":\"paced\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],"
        "\"max_tokens\":%u,\"stream\":true,\"stream_options\":{\"include_usage\":true}}", tokens);
    request_len = snprintf(request, sizeof request,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: %d\r\n\r\n%s", body_len, body);
}

static int send_request(int fd) {
    return write(fd, request, request_len) == request_len ? 0 : -1;
}

static int start(struct stream *stream, int poll, unsigned index, unsigned port, unsigned rounds) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (void *)&to, sizeof to)) return -1;
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event)) return -1;
    *stream = (struct stream){fd, rounds};
    return send_request(fd);
}

static long long now_us(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000LL + at.tv_nsec / 1000;
}

int main(int argc, char **argv) {
    if (argc != 5) { fprintf(stderr, "usage: floor PORT STREAMS TOKENS ROUNDS\n"); return 2; }
    unsigned port = atoi(argv[1]), count = atoi(argv[2]), tokens = atoi(argv[3]), rounds = atoi(argv[4]);
    static char buffer[65536];
    char control[128];
    struct stream *streams = calloc(count, sizeof *streams);
    struct epoll_event events[EVENTS];
    int poll = epoll_create1(0);
    unsigned started = 0, open = count;
    long chunks = 0;
    long long begun_us = now_us(), stamps = 0;
    make_request(tokens);
    while (open) {
        while (started < count && (now_us() - begun_us) * count >= (long long)RAMP_UP_US * started) {
            if (start(&streams[started], poll, started, port, rounds)) { perror("start"); return 1; }
            started++;
        }
        int ready = epoll_wait(poll, events, EVENTS, started < count ? 1 : SILENCE_MS);
        if (!ready && started == count) { fprintf(stderr, "the server is silent\n"); return 1; }
        for (int k = 0; k < ready; k++) {
            struct stream *stream = &streams[events[k].data.u32];
            struct iovec into = {buffer, sizeof buffer};
            struct msghdr message = {.msg_iov = &into, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
            ssize_t size = recvmsg(stream->fd, &message, 0);
            if (size < 0 && errno == EAGAIN) continue;
            if (size <= 0) { fprintf(stderr, "the server hung up\n"); return 1; }
            struct cmsghdr *header = CMSG_FIRSTHDR(&message);
            if (header) stamps += ((struct timespec *)CMSG_DATA(header))->tv_nsec != 0;
            chunks++;
            if (size >= 5 && !memcmp(buffer + size - 5, END, 5)) {
                if (--stream->rounds_left) { if (send_request(stream->fd)) { perror("write"); return 1; } }
                else { close(stream->fd); open--; }
            }
        }
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu_s = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"chunks\": %ld, \"stamped\": %lld, \"cpu_s\": %.4f, \"us_per_chunk\": %.3f}\n",
        chunks, stamps, cpu_s, cpu_s / chunks * 1e6);
    return 0;
}
