//go:build cgo

package entry

/*
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_TSYNC_ESRCH
#define SECCOMP_FILTER_FLAG_TSYNC_ESRCH (1UL << 4)
#endif

struct order {
	uint64_t flags;
	struct sock_filter program[4096];
};

// raise_capabilities makes the permitted capabilities effective: a change of the user,
// which is one of the process, takes the effective ones from this thread.
static int raise_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];
	if (syscall(SYS_capget, &header, data) != 0)
		return -1;
	for (int i = 0; i < 2; i++)
		data[i].effective = data[i].permitted;
	return syscall(SYS_capset, &header, data);
}

// answer sends the error, with the descriptor if it isn't negative.
static void answer(int fd, int32_t error, int descriptor)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec data = { &error, sizeof(error) };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1 };
	if (descriptor >= 0) {
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
	}
	while (sendmsg(fd, &message, MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
}

// obey loads the filter that comes from the socket into all threads.
static void *obey(void *argument)
{
	static struct order order;
	int fd = (int)(intptr_t)argument;
	ssize_t size;
	do
		size = recv(fd, &order, sizeof(order), 0);
	while (size < 0 && errno == EINTR);
	if (size < (ssize_t)sizeof(order.flags))
		return NULL; // there is no filter to load
	struct sock_fprog program = { (size - sizeof(order.flags)) / sizeof(order.program[0]), order.program };
	unsigned long flags = order.flags | SECCOMP_FILTER_FLAG_TSYNC;
	if (flags & SECCOMP_FILTER_FLAG_NEW_LISTENER)
		flags |= SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
	long listener = raise_capabilities();
	if (listener == 0)
		listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
	if (listener < 0)
		answer(fd, errno, -1);
	else
		answer(fd, 0, flags & SECCOMP_FILTER_FLAG_NEW_LISTENER ? (int)listener : -1);
	return NULL;
}

// start_thread starts a thread that obeys what comes from the socket. The thread keeps its
// permitted capabilities when the process changes its user.
static int start_thread(int fd)
{
	sigset_t all, before;
	pthread_t thread;
	pthread_attr_t attributes;
	sigfillset(&all); // the Go runtime can't handle signals there
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0); // the new thread inherits it
	int error = pthread_create(&thread, &attributes, obey, (void *)(intptr_t)fd);
	prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
	pthread_attr_destroy(&attributes);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error;
}
*/
import "C"

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// startThread has the calling process, once, load the seccomp filter that is sent to the
// other end of the socket, of type SOCK_SEQPACKET. A thread of its own waits for it, since
// the process is busy becoming a container, and loads it into all threads. It needs
// CAP_SYS_ADMIN when startThread is called, and no longer. The socket is closed when the
// process executes a program.
func startThread(socket int) error {
	unix.CloseOnExec(socket)
	if errno := C.start_thread(C.int(socket)); errno != 0 {
		return fmt.Errorf("start thread that loads the seccomp filter: %w", unix.Errno(errno))
	}
	return nil
}
