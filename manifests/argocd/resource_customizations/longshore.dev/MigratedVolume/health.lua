-- While a transfer runs, the points that are there are as good as before. What cannot be published is told as well.
local hs = { status = "Progressing", message = "Waiting for the Longshore operator" }

if obj.status == nil or obj.status.conditions == nil then
  return hs
end
local seen = obj.status.observedGeneration
if seen == nil or (obj.metadata.generation ~= nil and seen < obj.metadata.generation) then
  hs.message = "Waiting for the Longshore operator to see the change"
  return hs
end

local found = {}
for _, condition in ipairs(obj.status.conditions) do
  found[condition.type] = condition
end
local available, published = found.Available, found.Published
if available == nil then
  return hs
end
hs.message = available.message
local hasPoint = obj.status.newestPoint ~= nil
if available.status == "True" or (available.reason == "Frozen" and hasPoint) then
  hs.status = "Healthy"
elseif available.reason ~= "Empty" and available.reason ~= "Frozen" then
  hs.status = "Degraded"
end
if published ~= nil and published.status == "False" and hs.status ~= "Degraded" then
  hs.message = published.message
  if published.reason == "Applying" or published.reason == "Remaking" then
    hs.status = "Progressing"
  else
    hs.status = "Degraded"
  end
end
return hs
