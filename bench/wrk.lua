-- One vote a request, each with the next token of a file: argument 1; argument 2: the path.
local requests, number = {}, 0

function init(args)
   for token in io.lines(args[1]) do
      wrk.headers["Authorization"] = "Bearer " .. token
      wrk.headers["Content-Type"] = "application/json"
      requests[#requests + 1] = wrk.format("POST", args[2], nil, '{"choices":["ada"]}')
   end
end

function request()
   number = number % #requests + 1
   return requests[number]
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests":%d,"seconds":%f,"refused":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d}\n',
      summary.requests, summary.duration / 1e6, errors.status,
      errors.connect, errors.read, errors.write, errors.timeout))
end
