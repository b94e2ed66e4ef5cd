//go:build cgo

package entry

/*
#define _GNU_SOURCE // for F_GET_SEALS and AT_EMPTY_PATH
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PROGRAM 4 // ProgramFile

// nsexec is libcontainer's, which makes the namespaces. The small program doesn't have it.
extern void nsexec(void) __attribute__((weak));

extern char **environ;

// is_sealed tells whether the descriptor is a file in memory that nobody can change.
static int is_sealed(int fd)
{
	const int wanted = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	int seals = fcntl(fd, F_GET_SEALS);
	return seals >= 0 && (seals & wanted) == wanted;
}

// go_on executes the small program in the process that libcontainer has executed, once the
// namespaces are made. libcontainer's own constructor may run before this one, or would
// run behind it.
static void __attribute__((constructor)) go_on(void)
{
	char name[16] = "", *argv[] = { "init", NULL };
	if (getenv("_LIBCONTAINER_INITPIPE") == NULL || nsexec == NULL || !is_sealed(PROGRAM))
		return;
	prctl(PR_GET_NAME, name);
	if (strcmp(name, "runc:[2:INIT]") != 0)
		nsexec(); // returns in the process that has the namespaces
	syscall(SYS_execveat, PROGRAM, "", argv, environ, AT_EMPTY_PATH);
}
*/
import "C"
