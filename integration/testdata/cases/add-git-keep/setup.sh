. "${0%/*}/../../repository.sh"
