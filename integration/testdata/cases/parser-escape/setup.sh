echo hm > 'w ` x'
