package dockerfile

import (
	"maps"
	"slices"
	"strings"
)

// isProxy tells whether a build argument is one of the predefined proxy ones,
// which reach every RUN undeclared.
func isProxy(key string) bool {
	switch strings.ToLower(key) {
	case "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy":
		return true
	}
	return false
}

// proxyEnv returns the variables that the proxy arguments among the build
// arguments add to every RUN, each in upper and lower case.
func proxyEnv(buildArgs map[string]string) []string {
	values := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(buildArgs)) {
		if isProxy(key) {
			values[strings.ToUpper(key)] = buildArgs[key] // lower case sorts later and wins
		}
	}
	var env []string
	for _, key := range [...]string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"} {
		if v := values[key]; v != "" {
			env = append(env, key+"="+v, strings.ToLower(key)+"="+v)
		}
	}
	return env
}
