// Package fetch brings what a build takes from elsewhere onto this disk: files
// by HTTP, and the trees of git repositories.
//
// # Terms
//
//   - A validator is what a server gave along with a file (ETag, Last-Modified)
//     and with which it can say later that the file is still the same.
//   - A remote is the address of a git repository as git writes it, a URL or
//     user@host:path.
//   - A tree is the files of a commit. A gitlink is an entry of a tree that stands
//     for a commit of another repository, a submodule.
//
// # Rules
//
// They are those of BuildKit v0.34 (source/http, source/git):
//
//	what                      mode          owner    modification time
//	----                      ----          -----    -----------------
//	a file by HTTP            0600          process  Last-Modified, or 1970-01-01
//	files of a tree           0644 or 0755  process  now, or the commit's
//	directories               0755          process  now, or the commit's
//
// A reference of a repository is looked for as refs/NAME, refs/heads/NAME and
// refs/tags/NAME in this order. One commit is fetched, without its history,
// where the server can do that.
//
// BuildKit differs in these: it runs the program git, with what that takes from
// .gitattributes (line ends, filters), leaves a file .git in each submodule that
// leads nowhere in the image, takes any SSH host for the one that was meant, and
// decodes a body with a Content-Encoding.
//
// # Confinement
//
// Servers and repositories are hostile. Every name of a tree is one component, and no name
// is ".git" in a spelling that a file system may take for it. Each is made anew in a
// directory that was itself made anew. Links are written but never followed. Nothing of a
// repository is executed: its hooks, filters and configuration are not read. Remotes, also
// of submodules, are http, https, ssh or git; nothing reads this machine's files or starts
// a program.
//
// # Failures
//
// What fails for a passing reason is tried again, a download from its start (see
// package patience). A server from which nothing comes for too long has failed, too
// ([Options].IdleTimeout). A digest other than the wanted one is final: the Dockerfile
// says what is wanted, and may be wrong.
//
// The versions of the protocols are HTTP/1.1 and HTTP/2 (RFC 9110), and git's
// protocols version 0 and 1 with SHA-1 objects. Credentials go to the host that
// they are for and, like userinfo in URLs, never into an error.
package fetch
